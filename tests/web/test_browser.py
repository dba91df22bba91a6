"""The page in a real Chromium: previews, Stop, downloads, stored settings, a brushed mask, every view."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.video.files import read_video
from tests.web.conftest import DATA, running
from tfstyle.images import load, read_settings

pytest.importorskip("gradio")
pytestmark = pytest.mark.ui


@pytest.fixture
def page(server, browser):
    """An open tab with a content image, the style image of the package, and a small size."""
    tab = open_tab(server, browser)
    yield tab
    tab.context.close()


def open_tab(server, browser, **options):
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, **options)
    tab = context.new_page()
    tab.hosts, tab.problems = set(), []
    tab.on("request", lambda request: tab.hosts.add(request.url.split("/")[2]))
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.goto(server.url)
    tab.wait_for_selector("#paint")
    choose(tab)
    return tab


def choose(tab, content=DATA / "cat.jpg", size=96):
    upload(tab, "#content", content)
    tab.wait_for_selector("#content img")
    tab.get_by_role("button", name="Add style: Evening").click()
    tab.wait_for_selector("#styles img")
    set_number(tab, "#size", size)
    check(tab, "draft")


def upload(tab, control, path):
    ready(tab, tab.locator(f"{control} input[type=file]")).set_input_files(str(path))


def set_number(tab, control, value):
    fill(tab, tab.locator(f"{control} input[type=number]"), str(value))


def fill(tab, field, text):
    field = ready(tab, field)
    field.fill(text)
    field.press("Enter")
    assert field.input_value() == text


def check(tab, label):
    ready(tab, tab.get_by_label(label)).check()


def ready(tab, field):
    """Return a field (a locator) once the page has not changed for a quarter of a second.

    Gradio sets the first value of a field some milliseconds after it has added the field to the page. A value
    that a program sets in between, sooner than any user could, is lost. Tests therefore set every field by
    the functions above.
    """
    field.wait_for(state="attached")
    tab.evaluate(
        """() => new Promise(done => {
            let timer = setTimeout(done, 250);
            const restart = () => { clearTimeout(timer); timer = setTimeout(done, 250); };
            new MutationObserver(restart).observe(document.body, {childList: true, subtree: true});
        })"""
    )
    return field


def seen_until(tab, selector, end, seconds=120):
    """Return the texts that an element shows until one of them contains a word."""
    texts, start = [], time.monotonic()
    while time.monotonic() - start < seconds:
        text = tab.locator(selector).inner_text()
        if not texts or text != texts[-1]:
            texts.append(text)
        assert "error:" not in text.lower(), text
        if end in text:
            return texts
        time.sleep(0.02)
    raise AssertionError(texts[-3:])


def open_view(tab, name):
    tab.get_by_role("tab", name=name).click()


def test_previews_a_result_downloads_and_the_stored_settings(page, tmp_path):
    set_number(page, "#size", 320)
    check(page, "standard")
    page.click("#paint")
    texts = seen_until(page, "#preview", "iterations in")
    assert len([text for text in texts if "seconds" in text or "s left" in text]) >= 2
    page.wait_for_selector("#result img")
    assert page.locator("#result img").count() == 2  # content image and result, with a slider between them
    files = {}
    for button, suffix in (("#png", ".png"), ("#tiff", ".tif")):
        with page.expect_download() as download:
            page.click(button)
        files[suffix] = tmp_path / f"download{suffix}"
        download.value.save_as(files[suffix])
    assert load(files[".tif"]).bits == 16
    image = np.asarray(Image.open(files[".png"]).convert("RGB"), float)
    assert image.shape == (213, 320, 3)
    assert np.abs(load(files[".tif"]).rgb * 255 - image).max() < 0.6
    assert read_settings(files[".png"])["options"]["quality"] == "standard"
    # The file is dropped again: its settings are shown.
    set_number(page, "#size", 64)
    check(page, "draft")
    page.locator("#content").get_by_role("button", name="Remove Image").click()
    upload(page, "#content", files[".png"])
    page.wait_for_function("document.querySelector('#note').innerText.includes('settings')")
    assert page.locator("#size input[type=number]").input_value() == "320"
    assert page.get_by_label("standard").is_checked()
    assert page.problems == []
    assert len(page.hosts) == 1  # the browser asked no other server, for example for fonts


def test_each_view_can_be_stopped(page):
    """Compare keeps the results so far; Texture the image so far, which is that of the first scale."""
    set_number(page, "#size", 320)
    check(page, "high")
    open_view(page, "Compare")
    for count in (1, 2):
        page.click("#compare-add")
        page.wait_for_function(f"document.querySelectorAll('#compare-list li').length == {count}")
    page.click("#compare-run")
    seen_until(page, "#compare-preview", "1 of 2: scale")
    page.click("#compare-stop")
    seen_until(page, "#compare-preview", "1 results")
    open_view(page, "Texture")
    page.click("#texture-make")
    seen_until(page, "#texture-preview", "s left")
    page.click("#texture-stop")
    seen_until(page, "#texture-preview", "128 x 128 pixels")


def test_a_screen_reader_hears_the_begin_and_the_end_and_not_each_preview(page):
    set_number(page, "#size", 320)
    page.evaluate(
        """() => { window.heard = [];
        setInterval(() => { const line = document.querySelector('#preview [role=status]')?.innerText;
            if (line && line !== window.heard.at(-1)) window.heard.push(line); }, 20); }"""
    )
    page.click("#paint")
    texts = seen_until(page, "#preview", "iterations in")
    assert any("s left" in text for text in texts)
    page.wait_for_function("window.heard.at(-1).includes('iterations in')")
    assert not [line for line in page.evaluate("window.heard") if "s left" in line]


def test_stop_keeps_the_image_so_far(page):
    set_number(page, "#size", 320)
    check(page, "high")
    page.click("#paint")
    seen_until(page, "#preview", "s left")
    page.click("#stop")
    *_, text = seen_until(page, "#preview", "iterations in")
    assert int(text.split(",")[1].split()[0]) < 3 * 88
    page.wait_for_selector("#result img")


def test_a_mask_is_brushed(page, tmp_path):
    """The green region gets the second style, so that it differs from a result without regions."""
    page.get_by_role("button", name="Add style: Cat").click()
    open_view(page, "Places")
    page.click("#places-load")
    page.wait_for_selector("#places-editor canvas")
    for _ in range(10):  # until the editor is ready
        time.sleep(2)
        brush(page)
        page.click("#places-paint")
        page.wait_for_function(
            "/left|brushed|iterations in/.test(document.querySelector('#places-preview').innerText)"
        )
        if "brushed" not in page.locator("#places-preview").inner_text():
            break
    seen_until(page, "#places-preview", "iterations in")
    page.wait_for_selector("#places-result img")


def brush(page):
    """Draw a line from the centre of the editor."""
    box = page.locator("#places-editor canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(15):
        page.mouse.move(x + 5 * step, y + 3 * step)
    page.mouse.up()
    time.sleep(1)


def test_every_view_works(page):
    page.get_by_role("button", name="Add style: Cat").click()
    open_view(page, "Blend")
    page.click("#blend-paint")
    seen_until(page, "#blend-preview", "iterations in")
    page.wait_for_selector("#blend-result img")
    page.click("#blend-strip")
    seen_until(page, "#blend-preview", "5 of 5")
    open_view(page, "Texture")
    set_number(page, "#texture-side", 64)
    page.click("#texture-make")
    seen_until(page, "#texture-preview", "64 x 64 pixels")
    open_view(page, "Compare")
    page.click("#compare-add")
    page.wait_for_function("document.querySelector('#compare-list').innerText.includes('StyleConfig')")
    set_number(page, "#size", 64)
    page.click("#compare-add")
    page.wait_for_function("document.querySelector('#compare-list').innerText.includes('size=64')")
    page.click("#compare-run")
    seen_until(page, "#compare-preview", "2 results")
    open_view(page, "Explain")
    page.click("#explain-run")
    seen_until(page, "#explain-preview", "done")
    open_view(page, "Gallery")
    page.wait_for_selector("#gallery img")
    assert page.locator("#gallery img").count() >= 4  # a blend, a strip, a texture and a sheet
    assert page.problems == []


def test_a_wrong_value_is_one_line(page):
    page.get_by_role("button", name="Advanced").click()
    page.get_by_role("button", name="losses").click()
    fill(page, page.get_by_label("style layer weights"), "1,x")
    page.click("#paint")
    page.wait_for_function("document.querySelector('#preview').innerText.includes('error')")
    assert "style_layer_weights is '1,x'; give numbers" in page.locator("#preview").inner_text()


def test_a_damaged_image_gets_the_line_of_the_command_line(page, server, tmp_path):
    """It is shown when the image is chosen and when the job begins."""
    damaged = tmp_path / "damaged.png"
    damaged.write_text("not an image")
    line = "error: damaged.png: not an image that can be read (its format is unknown)"
    page.locator("#content").get_by_role("button", name="Remove Image").click()
    upload(page, "#content", damaged)
    page.wait_for_function("document.querySelector('#note').innerText.includes('error')")
    assert page.locator("#note").inner_text().strip() == line
    page.click("#paint")
    page.wait_for_function("document.querySelector('#preview').innerText.includes('error')")
    assert page.locator("#preview").inner_text().strip() == line
    assert "Traceback" not in server.messages.read_text()


def test_a_preset_is_shown_in_the_controls(page):
    page.get_by_role("button", name="Advanced").click()
    page.get_by_role("button", name="network").click()
    assert page.get_by_label("pooling").input_value() == "avg"
    page.get_by_label("preset").click()
    page.get_by_role("option", name="neural-style", exact=True).click()
    page.wait_for_function("[...document.querySelectorAll('input')].some(e => e.value == 'max')")
    assert page.get_by_label("pooling").input_value() == "max"


def test_a_closed_tab_ends_its_job_and_its_files_are_deleted(server, browser):
    first, second = (open_tab(server, browser) for _ in range(2))
    set_number(first, "#size", 512)
    check(first, "high")
    first.click("#paint")
    seen_until(first, "#preview", "s left")
    second.click("#paint")
    second.wait_for_function("document.querySelector('#preview').innerText.includes('queue')")  # its place
    first.context.close()
    seen_until(second, "#preview", "iterations in")
    second.context.close()
    deadline = time.monotonic() + 30
    while (left := tfstyle_files(server)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


def test_a_job_whose_tab_closes_in_the_queue_never_begins(server, browser):
    began = server.messages.read_text().count("a job begins")
    first, second, third = (open_tab(server, browser) for _ in range(3))
    set_number(first, "#size", 320)
    check(first, "high")
    first.click("#paint")
    seen_until(first, "#preview", "s left")
    for tab in (second, third):
        tab.click("#paint")
        tab.wait_for_function("document.querySelector('#preview').innerText.includes('queue')")
        place = tab.locator("#preview .progress-text").bounding_box()
        assert place["height"] > 10  # it can be seen
    second.context.close()
    time.sleep(1)  # until the server has noticed it
    first.click("#stop")
    seen_until(third, "#preview", "iterations in")
    assert server.messages.read_text().count("a job begins") == began + 2
    for tab in (first, third):
        tab.context.close()


def test_scores_appear_with_the_weights_of_imagenet(tmp_path, browser, data):
    """The server uses a file with the genuine weights of blocks 1 to 3, whose path users do not learn."""
    weights = data / "weights" / "vgg19_imagenet_block1-3.npz"
    with running(tmp_path, "--weights", str(weights)) as server:
        tab = open_tab(server, browser)
        set_number(tab, "#size", 192)
        tab.click("#paint")
        seen_until(tab, "#preview", "iterations in")
        tab.wait_for_function("/E -?[0-9.]+.*S [0-9.]+/.test(document.querySelector('#facts').innerText)")
        assert f"weights {weights.name}" in tab.locator("#facts").inner_text()
        with tab.expect_download() as download:
            tab.click("#png")
        download.value.save_as(tmp_path / "result.png")
        stored = read_settings(tmp_path / "result.png")
        assert str(weights.parent) not in str(stored)
        tab.context.close()


def test_an_image_can_be_chosen_while_tensorflow_loads(tmp_path, browser):
    """Two threads that import TensorFlow at the same time would block each other."""
    with running(tmp_path, "--weights", "embedded") as server:
        tab = open_tab(server, browser)
        tab.click("#paint")
        seen_until(tab, "#preview", "iterations in")
        tab.context.close()
        assert "Traceback" not in server.messages.read_text()


def tfstyle_files(server):
    """Return the files of visits with a browser that are left in the folder of the server."""
    return [path for path in Path(server.pages).rglob("tfstyle-*-*.*") if path.suffix in (".jpg", ".tif")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_and_a_keyboard_reach_every_control(server, browser, theme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=theme)
    tab = context.new_page()
    tab.goto(server.url)
    tab.wait_for_selector("#paint")
    widths = tab.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]  # nothing has to be scrolled sideways
    dark = tab.evaluate("document.body.classList.contains('dark')")
    assert dark == (theme == "dark")
    unnamed = tab.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea')]
        .filter(e => e.offsetParent !== null)
        .filter(e => !(e.innerText || e.ariaLabel || e.title || e.placeholder || e.labels?.length
            || e.closest('label') || e.getAttribute('aria-labelledby')))
        .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.id || document.activeElement.innerText"))
    assert {"paint", "stop"} <= reached
    context.close()


def test_a_clip_is_painted_with_a_preview_and_stop_keeps_the_frames(page, tmp_path):
    from tests.video.clips import pan
    from tests.video.files import write_clip

    clip = write_clip(tmp_path / "clip.mp4", pan(6, (64, 96)).frames, fps=10, sound=0.6)
    open_view(page, "Video")
    upload(page, "#video-clip", clip)
    page.wait_for_function("document.querySelector('#video-clip').innerText.includes('clip.mp4')")
    check(page, "Fast")
    page.click("#video-paint")
    texts = seen_until(page, "#video-preview", "frames in")
    assert any("frame 1 of 6, iteration" in text for text in texts)
    assert "96 x 64 pixels, 6 of 6 frames in" in texts[-1]
    assert "warping error" in texts[-1]
    page.wait_for_selector("#video-result video")
    url = page.locator("#video-result video").get_attribute("src")
    content = page.request.get(url).body()
    (tmp_path / "result.mp4").write_bytes(content)
    times, frames = read_video(tmp_path / "result.mp4")
    assert frames.shape == (6, 64, 96, 3)
    assert times == pytest.approx([i / 10 for i in range(6)])
    # Stop keeps the frames that are finished.
    check(page, "high")
    page.click("#video-paint")
    seen_until(page, "#video-preview", "frame 3 of 6")
    page.click("#video-stop")
    (last,) = seen_until(page, "#video-preview", "frames in")[-1:]
    assert re.search(r"[23] of 6 frames in", last)
    assert page.problems == []


def test_a_missing_clip_is_one_line(page):
    open_view(page, "Video")
    page.click("#video-paint")
    page.wait_for_function("document.querySelector('#video-preview').innerText.includes('error: no clip')")


def test_a_wrong_clip_is_one_line(page, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    open_view(page, "Video")
    upload(page, "#video-clip", tmp_path / "clip.mp4")
    page.wait_for_function("document.querySelector('#video-clip').innerText.includes('clip.mp4')")
    page.click("#video-paint")
    page.wait_for_function("document.querySelector('#video-preview').innerText.includes('FFmpeg')")
    text = page.locator("#video-preview").inner_text()
    assert text.startswith("error: clip.mp4 is not a video that FFmpeg can read")
