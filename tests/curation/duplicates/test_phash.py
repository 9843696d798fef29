import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import fftpack

from curation.duplicates.phash import NUM_SET_BITS, phash
from tests.support.picture_root import scene


def imagehash_phash(image: Image.Image) -> str:
    """imagehash.phash as its documentation describes it, written from the description: the reference for COYO."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS))
    low = fftpack.dct(fftpack.dct(grey, axis=0), axis=1)[:8, :8]
    bits = "".join("1" if above else "0" for above in (low > np.median(low)).flatten())
    return f"{int(bits, 2):016x}"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.integers(8, 300), height=st.integers(8, 300), grey=st.booleans())
def test_same_bits_as_imagehash(seed: int, width: int, height: int, grey: bool) -> None:
    image = scene(seed, 40).resize((width, height))
    image = image.convert("L") if grey else image
    assert f"{phash(np.asarray(image)):016x}" == imagehash_phash(image)


def test_a_bad_jpeg_copy_stays_near_and_another_picture_far() -> None:
    image, sink = scene(1), io.BytesIO()
    image.resize((70, 70)).save(sink, "JPEG", quality=30)
    mine = phash(np.asarray(image))
    assert (mine ^ phash(np.asarray(Image.open(sink)))).bit_count() <= 6
    assert (mine ^ phash(np.asarray(scene(2)))).bit_count() > 12


def test_pictures_have_half_their_bits_set_and_plain_ones_do_not() -> None:
    assert phash(np.asarray(scene(3))).bit_count() == NUM_SET_BITS
    assert phash(np.full((50, 50), 200, np.uint8)).bit_count() != NUM_SET_BITS
