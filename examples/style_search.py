"""Search by style: the nearest neighbours of each image of a folder, and a map of their styles.

``python examples/style_search.py FOLDER [QUERY] [WEIGHTS] [OUTPUT]`` computes the style embeddings of the
images in a folder and its subfolders. QUERY is the path of an image, inside or outside the folder, or ``all``
(the default) for each image of the folder. For each query image it prints the five images of the folder whose
embeddings have the largest inner products with its embedding. An inner product near 1 means a very similar
style. The map places each image at the first two principal components of its embedding, so that images of
similar styles are near each other.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import tfstyle
from tfstyle.images import ImageArray, find_images, load, save

NEIGHBOURS = 5
MAP_SIZE = 1024  # longest side of the map in pixels


def main(folder: str, query: str = "all", weights: str = "auto", output: str = "style_map.png") -> None:
    """Print the nearest neighbours of the query images and save the map of styles.

    Args:
        folder: a folder with at least three images.
        query: path of an image, or ``all`` for each image of the folder.
        weights: the encoder's weights, as for `tfstyle.StyleExtractor`.
        output: path of the map, an image file.
    """
    paths = {path.resolve(): path for path in find_images([Path(folder)])}
    paths.pop(Path(output).resolve(), None)  # the map of an earlier run
    extractor = tfstyle.StyleExtractor(weights=weights)

    def embed(path: Path) -> np.ndarray:
        return extractor(path)["embedding"][0].numpy()

    queries = {}
    if query != "all":  # before the images of the folder, so that an error is reported at once
        path = paths.get(Path(query).resolve(), Path(query))
        queries[path] = embed(path)
    embeddings = {}
    for path in paths.values():
        try:
            embeddings[path] = embed(path)
        except tfstyle.TfstyleError as error:
            print(f"skipped {path}: {error}", file=sys.stderr)
    if len(embeddings) < 3:
        sys.exit(f"{folder} has {len(embeddings)} usable images; the map needs at least 3")
    for path, embedding in (queries or embeddings).items():
        print_neighbours(path, embedding, embeddings)
    save_map(Path(output), embeddings)


def print_neighbours(query: Path, embedding: np.ndarray, embeddings: Mapping[Path, np.ndarray]) -> None:
    """Print the images whose styles are most similar to that of a query image, without the image itself."""
    others = [path for path in embeddings if path != query]
    similarities = np.stack([embeddings[path] for path in others]) @ embedding
    print(query)
    for index in np.argsort(-similarities)[:NEIGHBOURS]:
        print(f"  {similarities[index]:.3f}  {others[index]}")


def save_map(output: Path, embeddings: Mapping[Path, np.ndarray]) -> None:
    """Save the map, whose axes have the same scale, and print the share of variance that each explains."""
    centred = np.stack(list(embeddings.values()))
    centred -= centred.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    positions = left[:, :2] * singular[:2]
    positions -= positions.min(0)
    positions /= max(positions.max(), 1e-6)  # differences below 1e-6 are rounding errors of equal embeddings
    side = int(np.clip(MAP_SIZE / np.sqrt(len(embeddings)) / 2.5, 32, 192))  # of a thumbnail with its border
    corners = np.rint(positions * (MAP_SIZE - side)).astype(int)
    width, height = corners.max(0) + side
    sheet = np.ones((height, width, 3), np.float32)
    for path, (x, y) in zip(embeddings, corners):
        thumbnail = load(path).fitted(side - 2).on_white()
        framed = np.pad(thumbnail, ((1, 1), (1, 1), (0, 0)), constant_values=0.2)
        top, left = y + (side - framed.shape[0]) // 2, x + (side - framed.shape[1]) // 2
        sheet[top : top + framed.shape[0], left : left + framed.shape[1]] = framed
    save(output, ImageArray(sheet), overwrite=True)
    across, down = singular[:2] ** 2 / max(np.sum(singular**2), 1e-12)
    print(f"{output}: {across:.0%} of the variance from left to right, {down:.0%} from top to bottom")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except tfstyle.TfstyleError as error:
        sys.exit(str(error))
