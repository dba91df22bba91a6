import pytest


@pytest.fixture(scope="session", autouse=True)
def video_libraries():
    """Skip the tests of this folder where PyAV and OpenCV are not installed."""
    pytest.importorskip("av", minversion="14")
    pytest.importorskip("cv2")
