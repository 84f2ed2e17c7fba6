import struct
import zlib

import google_crc32c
import numpy as np

from engine.training._event_file import EventFile, confusion_image, png


def events(path):
    """Read by the message classes of tensorboardX, the framing by its specification."""
    from tensorboardX.proto.event_pb2 import Event

    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        body = data[at + 12 : at + 12 + length]
        for part, place in ((data[at : at + 8], at + 8), (body, at + 12 + length)):
            crc = google_crc32c.value(part)
            masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack("<I", data[place : place + 4]) == (masked,)
        found.append(Event.FromString(body))
        at += length + 16
    return found


def test_another_reader_finds_scalars_and_images(tmp_path):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    with EventFile(tmp_path / "tb", first_step=300) as file:
        file.scalar("loss/step", 0.25, 300)
        file.scalar("validation/mcc", -1.5, 1 << 40)
        file.image("confusion", pixels, 7)
    (path,) = (tmp_path / "tb").iterdir()
    assert "tfevents" in path.name
    first, *rest = events(path)
    assert first.file_version == "brain.Event:2"
    told = [(one.step, one.summary.value[0].tag, one.summary.value[0].simple_value) for one in rest[:2]]
    assert told == [(300, "loss/step", 0.25), (1 << 40, "validation/mcc", -1.5)]
    image = rest[2].summary.value[0].image
    assert (image.height, image.width, image.colorspace, rest[2].step) == (2, 3, 3, 7)
    assert image.encoded_image_string == png(pixels)
    assert all(one.wall_time > 1e9 for one in [first, *rest])


def test_a_png_holds_its_pixels():
    """Decoded by the specification: chunks with their CRC, rows with filter type 0."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    data, at, chunks = png(pixels), 8, {}
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        at += length + 12
    assert struct.unpack(">IIBB", chunks[b"IHDR"][:10]) == (4, 5, 8, 2)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(5, 13)
    assert (rows[:, 0] == 0).all()
    assert (rows[:, 1:].reshape(5, 4, 3) == pixels).all()


def test_the_confusion_image_is_darker_where_more_went():
    image = confusion_image(np.array([[9, 1], [0, 0]]), cell=2).astype(int)
    assert image.shape == (4, 4, 3)
    hit, miss, none = image[0, 0].sum(), image[0, 2].sum(), image[2, 0].sum()
    assert hit < miss < none == 3 * 255
