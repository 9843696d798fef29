import io
import os
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageOps
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.recipe.config import EmbedConfig, Recipe
from curation.storage import Root, fingerprint
from curation.tables import embedded_units, metadata_file, samples_file, vectors_file
from jobs import embed
from jobs.embed import embed_unit, plan_tasks, run, to_half
from jobs.embedders import efficientnet_lite0, find_embedder, identify_model, is_same_model, load_embedder
from jobs.embedders.efficientnet_lite0 import trim_frame
from tests.support.embedding_folder import TWO_ROWS, write_folder
from tests.support.picture_root import Fetched, fill, scene

pytest.importorskip("efficientnet_lite_pytorch", reason="needs the score extra")


def encoded(seed: int, quality: int = 90) -> bytes:
    sink = io.BytesIO()
    scene(seed).save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def read(root: Root, unit: str) -> tuple[list[str], np.ndarray]:
    uids = root.read_parquet(metadata_file(unit))["uid"].to_pylist()
    return uids, np.load(io.BytesIO(root.read_bytes(vectors_file(unit))))


def test_a_unit_is_embedded_in_order_of_uid_whatever_the_batch_size(root: Root) -> None:
    uids = fill(root, [(f"{i}", encoded(i), {}) for i in range(4)] + [("lost", b"", {})], num_units=1)
    unit = root.units("downloads")[0]
    assert embed_unit(root, unit, "efficientnet-lite0", 32) == 4
    found, vectors = read(root, unit)
    assert found == sorted(uids[:4])
    assert vectors.dtype == np.float16
    assert vectors.shape == (4, 1280)
    assert np.allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=1e-2)
    embed_unit(root, unit, "efficientnet-lite0", 3)
    assert np.allclose(read(root, unit)[1], vectors, atol=2e-3)


def test_a_task_that_begins_again_leaves_the_units_that_its_first_attempt_has_made(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(root, [(f"{i}", encoded(i), {}) for i in range(4)], num_units=2)
    model = "efficientnet-lite0"
    first, second = plan_tasks(root, "embeddings", model, EmbedConfig(), root.units("downloads"))
    first.run(root)
    stamp = os.stat(root.full(vectors_file(first.unit))).st_mtime_ns
    monkeypatch.setattr(embed, "is_repeated", lambda: True)
    for task in (first, second):
        task.run(root)
    assert os.stat(root.full(vectors_file(first.unit))).st_mtime_ns == stamp
    assert embedded_units(root) == [first.unit, second.unit]


def test_copies_lie_above_the_calibrated_cosine_and_broken_bytes_give_nan() -> None:
    embedder = load_embedder("efficientnet-lite0")
    pictures = [encoded(1, 95), encoded(1, 30), b"no picture", b""]
    vectors = embedder.embed(list("abcd"), pictures)
    assert embedder.min_cosine is not None
    assert vectors[0] @ vectors[1] > embedder.min_cosine
    assert np.isnan(vectors[2:]).all()


@pytest.mark.parametrize("colour", ["white", "black", "#a03020"])
def test_a_frame_is_cut_off_before_a_picture_is_embedded(colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = np.random.default_rng(5).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((200, 200), Image.Resampling.BICUBIC)
    plain, framed = io.BytesIO(), io.BytesIO()
    picture.save(plain, "JPEG", quality=90)
    ImageOps.expand(picture, 21, colour).save(framed, "JPEG", quality=80)
    height, width = trim_frame(cv2.imdecode(np.frombuffer(framed.getvalue(), np.uint8), cv2.IMREAD_COLOR)).shape[:2]
    assert 188 <= height <= 208 and 188 <= width <= 208, "all but the ringing beside the picture is cut"
    pictures = [plain.getvalue(), framed.getvalue()]
    vectors = load_embedder("efficientnet-lite0").embed(["a", "b"], pictures)
    monkeypatch.setattr(efficientnet_lite0, "trim_frame", lambda image: image)
    untrimmed = load_embedder("efficientnet-lite0").embed(["a", "b"], pictures)
    assert vectors[0] @ vectors[1] > untrimmed[0] @ untrimmed[1] + 0.02


def test_what_is_no_frame_stays() -> None:
    picture = np.asarray(scene(1))
    assert trim_frame(picture) is not picture and np.array_equal(trim_frame(picture), picture)
    plain = np.full((80, 60, 3), 7, np.uint8)
    assert trim_frame(plain).shape == (40, 30, 3)
    one_line = picture.copy()
    one_line[0] = 0
    assert trim_frame(one_line).shape == picture.shape


def test_a_missing_or_short_shard_is_named(root: Root) -> None:
    fill(root, [("a", encoded(1), {}), ("b", encoded(2), {})], num_units=1)
    unit = root.units("downloads")[0]
    shard = root.list("raw")[0]
    root.publish(f"raw/{shard}", root.read_bytes(f"raw/{shard}")[:700])
    with pytest.raises(UserError, match=shard):
        embed_unit(root, unit, "efficientnet-lite0", 8)
    root.remove(f"raw/{shard}")
    with pytest.raises(UserError, match=f"{shard} is gone"):
        embed_unit(root, unit, "efficientnet-lite0", 8)
    assert not root.exists(vectors_file(unit))


def test_a_folder_of_embeddings_is_joined_by_url_and_caption(spark: SparkSession, root: Root, tmp_path: Path) -> None:
    pictures: list[Fetched] = [(f"{i}", encoded(i), {}) for i in range(5)] + [("", encoded(9), {})]
    fill(root, pictures)
    urls = [f"http://host{i % 3}.test/{i}.jpg" for i in range(6)]
    vectors = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float16)
    # In another order, over two files, with NULL for an empty caption, and without number 4.
    first = pa.table({"url": [urls[5], urls[2], urls[0]], "caption": [None, "2", "0"]})
    second = pa.table({"URL": [urls[3], "http://else.test/", urls[1]], "TEXT": ["3", "x", "1"]})
    write_folder(tmp_path / "emb", [(first, vectors[[5, 2, 0]]), (second, vectors[[3, 4, 1]])])
    run(spark, Recipe(folder=str(tmp_path), embed=EmbedConfig(model="emb")), root)
    captions = {row["uid"]: row["caption"] for u in root.units("samples") for row in rows_of(root, u)}
    seen: dict[str, np.ndarray] = {}
    for unit in root.units("downloads"):
        seen |= dict(zip(*read(root, unit), strict=True))
    assert len(seen) == 6
    for uid, vector in seen.items():
        number = int(captions[uid] or 5)
        assert np.isnan(vector).all() if number == 4 else np.array_equal(vector, vectors[number])
    with pytest.raises(UserError, match=r"was embedded with emb:.* embed\.model is efficientnet-lite0"):
        run(spark, Recipe(), root)


def rows_of(root: Root, unit: str) -> list[dict[str, str]]:
    return root.read_parquet(samples_file(unit), ["uid", "caption"]).to_pylist()


def test_a_bad_folder_is_refused_before_anything_is_written(root: Root, tmp_path: Path) -> None:
    write_folder(tmp_path / "emb", [(TWO_ROWS, np.ones((3, 4), np.float32))])
    with pytest.raises(UserError, match="they must match"):
        run(None, Recipe(folder=str(tmp_path), embed=EmbedConfig(model="emb")), root)  # type: ignore[arg-type]


def test_an_unknown_model_is_refused_before_anything_is_written(spark: SparkSession, root: Root) -> None:
    with pytest.raises(UserError, match="no-such-model"):
        run(spark, Recipe(embed=EmbedConfig(model="no-such-model")), root)
    with pytest.raises(UserError, match="curate download"):
        run(spark, Recipe(), root)
    assert root.folders() == []


def test_an_eva_clip_checkpoint_embeds_as_the_model_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from trainer.data.transforms import EvalTransform, preprocess
    from trainer.models import build, names

    torch.manual_seed(0)
    name = next(name for name in names() if "debug" in name)
    model = build(name).eval()
    torch.save(model.state_dict(), tmp_path / "tiny.pt")
    embedder = find_embedder(str(tmp_path / "tiny.pt"))(str(tmp_path / "tiny.pt"))
    data = encoded(3)
    vectors = embedder.embed(["a", "b"], [b"broken", data])
    with torch.inference_mode():
        pixels = preprocess(data, EvalTransform(model.config.vision.image_size))
        expected = torch.nn.functional.normalize(model.encode_image(pixels[None]), dim=1)[0].numpy()
    assert np.isnan(vectors[0]).all()
    assert np.allclose(vectors[1], expected, atol=1e-4)


def test_an_onnx_file_embeds_as_its_graph_says(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, which no extra installs")
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    shapes = [("x", [2, 3, 32, 32]), ("y", [2, 3])]
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shapes]
    graph = onnx.helper.make_graph([node], "mean", ends[:1], ends[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(made, str(tmp_path / "mean.onnx"))
    embedder = find_embedder(str(tmp_path / "mean.onnx"))(str(tmp_path / "mean.onnx"))
    vectors = embedder.embed(list("abc"), [encoded(1), b"", encoded(1)])
    assert np.isfinite(vectors[0]).all() and np.array_equal(vectors[0], vectors[2])
    assert np.isnan(vectors[1]).all()


def test_identity_covers_the_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "emb").mkdir()
    (tmp_path / "emb" / "a.npy").write_bytes(b"123")
    before = identify_model(str(tmp_path / "emb"))
    (tmp_path / "emb" / "a.npy").write_bytes(b"1234")
    assert identify_model(str(tmp_path / "emb")) != before
    assert identify_model("efficientnet_lite0") == identify_model("efficientnet-lite0")


def test_two_checkpoints_of_one_size_are_two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file, identities = tmp_path / "clip.safetensors", []
    for content in (b"first weights", b"other weights"):
        file.write_bytes(content)
        os.utime(file, ns=(0, 0))
        identities.append(identify_model(str(file)))
    assert len(set(identities)) == 2 and all(text.startswith("clip.safetensors:sha256-") for text in identities)


def test_a_checkpoint_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "clip.safetensors"
    file.write_bytes(b"weights")
    first = identify_model(str(file))
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("the file was read again"))
    assert identify_model(str(file)) == first


def test_what_an_earlier_version_wrote_down_still_names_its_model(tmp_path: Path) -> None:
    file = tmp_path / "clip.onnx"
    file.write_bytes(b"123")
    by_size = f"clip.onnx:{fingerprint([['clip.onnx', 3]])}"
    assert is_same_model(by_size, str(file)) and is_same_model(identify_model(str(file)), str(file))
    file.write_bytes(b"1234")
    assert not is_same_model(by_size, str(file))


def test_half_precision_keeps_directions_and_nan() -> None:
    vectors = np.array([[1e6, 1e6], [3, 4], [np.nan, 1], [3e-9, 4e-9], [0, 0]], np.float32)
    kept = to_half(vectors).astype(np.float32)
    assert np.allclose(kept[0], [0.7071, 0.7071], atol=1e-3)
    assert np.array_equal(kept[1], [3, 4])
    assert np.isnan(kept[2]).any()
    assert np.allclose(kept[3], [0.6, 0.8], atol=1e-3) and not kept[4].any()


def test_every_embedder_is_found_by_what_it_accepts(tmp_path: Path) -> None:
    (tmp_path / "img_emb").mkdir()
    (tmp_path / "x.onnx").write_bytes(b"")
    (tmp_path / "x.safetensors").write_bytes(b"")
    wanted = {"efficientnet_lite0": "EfficientNetLite0", str(tmp_path): "Folder"}
    wanted |= {str(tmp_path / "x.onnx"): "OnnxFile", str(tmp_path / "x.safetensors"): "ClipCheckpoint"}
    assert {model: find_embedder(model).__name__ for model in wanted} == wanted
