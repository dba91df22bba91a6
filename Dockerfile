# This image runs the page of tfstyle on a CPU. A password protects the page:
#
#   docker build -t tfstyle .
#   docker run --rm -p 127.0.0.1:8000:8000 -e TFSTYLE_PASSWORD='open sesame' -v tfstyle-weights:/weights tfstyle
#
# Then open http://127.0.0.1:8000. The ImageNet weights are not in the image: they are downloaded once to the volume
# tfstyle-weights. If they are already in ~/.keras, use them with -v ~/.keras:/weights:ro. Without a network, tfstyle
# uses the embedded weights. To run another command of tfstyle instead of the page, append it. It reads and writes the
# current folder, and runs as the current user:
#
#   docker run --rm --user "$(id -u):$(id -g)" -e HOME=/tmp -v "$PWD:/images" -v ~/.keras:/weights:ro tfstyle \
#     stylize content.jpg style.jpg -o out.png
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY tfstyle tfstyle
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && echo "tfstyle[ui,heic] @ file://$(echo /wheels/*.whl)" > /wheels/requirements.txt

FROM python:3.12-slim-bookworm
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --requirement /wheels/requirements.txt \
    && rm -r /wheels \
    && useradd --create-home --uid 10001 tfstyle \
    && install -d -o tfstyle /weights /images
USER 10001
WORKDIR /images
ENV KERAS_HOME=/weights KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/')"]
ENTRYPOINT ["tfstyle"]
CMD ["ui", "--host", "0.0.0.0", "--port", "8000", "--no-browser"]
