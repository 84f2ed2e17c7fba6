import numpy as np
import pytest

from engine.encoders.one_hot import OneHot, OneHotParams
from engine.encoders.protein_tokens import ProteinTokens, ProteinTokensParams
from engine.errors import DataError, InputError
from engine.genome.windows import reverse_complement, text_from_tokens, tokens_from_text
from engine.training import _batches
from engine.training._batches import BatchLoader, Reader
from engine.training._sample_plan import SamplePlan
from engine.training._sequence_set import SequenceSet, index_splits, open_set
from engine.training._split_table import SplitTable
from engine.training.kinds import sequences
from engine.training.kinds.sequences import SequenceAugmentation, SequenceReader
from engine.training.tasks.sequence_classification import SequenceClassification, SequenceClassificationParams
from tests.toys.sequences import motif_rows, row, write_set, write_splits

TASK = SequenceClassification(SequenceClassificationParams(), ("none", "site"), (20, 20))


def opened(folder, rows, augmentation=None, **options):
    write_set(folder / "set", rows, rows_per_group=8)
    data = open_set(str(folder / "set"))
    path = write_splits(folder / "splits.parquet", rows, lambda record: "train")
    split = index_splits(data, SplitTable.load(str(path), data))["train"]
    plan = SamplePlan(tuple(len(group.rows) for group in split), 0, 10)
    return BatchLoader(split, plan, SequenceReader(OneHot(OneHotParams()), TASK, augmentation), seed=3, **options)


def texts_of(batch):
    pairs = zip(batch.inputs.tokens_BL, batch.inputs.lengths_B, strict=True)
    return [text_from_tokens(tokens[:length]) for tokens, length in pairs]


def test_samples_come_in_the_order_asked_for_with_their_own_targets(tmp_path):
    rows = motif_rows(40)
    batch = opened(tmp_path, rows).load(np.array([33, 2, 17, 2]), epoch=0)
    assert batch.records_B.tolist() == [33, 2, 17, 2]
    assert texts_of(batch) == [rows[record]["sequence"] for record in (33, 2, 17, 2)]
    assert batch.targets.tolist() == [1, 0, 1, 0]
    for tokens, length in zip(batch.inputs.tokens_BL, batch.inputs.lengths_B, strict=True):
        assert (tokens[length:] == 4).all()


def test_augmentation_is_decided_by_the_sample_not_by_its_batch(tmp_path):
    rows = motif_rows(40)
    loader = opened(tmp_path, rows, augmentation=SequenceAugmentation(reverse_complement=True, jitter_bp=3))
    whole = texts_of(loader.load(np.arange(40), epoch=5))
    alone = [texts_of(loader.load(np.array([one]), epoch=5))[0] for one in range(40)]
    assert whole == alone
    assert whole != texts_of(loader.load(np.arange(40), epoch=6))


def test_augmented_samples_are_the_sequence_moved_or_read_the_other_way(tmp_path):
    rows = motif_rows(40)
    loader = opened(tmp_path, rows, augmentation=SequenceAugmentation(reverse_complement=True, jitter_bp=2))
    kinds = set()
    for made, one in zip(texts_of(loader.load(np.arange(40), epoch=0)), rows, strict=True):
        text = one["sequence"]
        possible = {
            (name, by): text_from_tokens(sequences.moved(tokens_from_text(way), by, 4))
            for name, way in (("as it is", text), ("other strand", reverse_complement(text)))
            for by in range(-2, 3)
        }
        kinds |= {kind for kind, wanted in possible.items() if wanted == made}
        assert made in possible.values()
        assert len(made) == len(text)
    assert len(kinds) == 10  # all of them happen


@pytest.mark.parametrize(
    ("by", "text"), [(0, "ACGT"), (1, "NACG"), (-1, "CGTN"), (4, "NNNN"), (-4, "NNNN"), (9, "NNNN"), (-9, "NNNN")]
)
def test_moving(by, text):
    assert text_from_tokens(sequences.moved(tokens_from_text("ACGT"), by, 4)) == text


def test_parts_are_padded_no_more_than_they_need(tmp_path):
    batch = opened(tmp_path, [row(0, "ACGTACGT", label="site"), row(1, "AC", label="none")]).load(np.arange(2), epoch=0)
    assert batch.part(1, 2).inputs.tokens_BL.tolist() == [[0, 1]]
    assert len(batch.part(2, 2)) == 0


def test_the_cache_is_bounded_and_changes_nothing(tmp_path):
    rows = motif_rows(64)
    loader, narrow = opened(tmp_path, rows), opened(tmp_path / "narrow", rows, cache_bytes=700)
    for ids in (np.arange(0, 64, 7), np.arange(64)[::-1]):
        assert texts_of(loader.load(ids, epoch=0)) == texts_of(narrow.load(ids, epoch=0))
        assert sum(held.tokens.nbytes for held in narrow._held.values()) <= 700
    assert len(loader._held) == 8


@pytest.mark.parametrize(("room", "ahead"), [(1 << 30, 16), (3.5, 3), (0.1, 1)])
def test_a_reader_is_ahead_by_as_many_batches_as_there_is_room_for(tmp_path, monkeypatch, room, ahead):
    loader = opened(tmp_path, motif_rows(400, low=24, high=24))
    size = loader.load(np.arange(10), epoch=0).nbytes
    assert size == 10 * (24 + 8 + 8)  # tokens, lengths, targets
    monkeypatch.setattr(_batches, "_AHEAD_BYTES", int(room * size))
    begun = []

    def load(ids, *, epoch, load=loader.load):
        begun.append(len(begun))
        return load(ids, epoch=epoch)

    monkeypatch.setattr(loader, "load", load)
    plan = loader._plan
    batches = Reader(loader, plan, 0, 1)(epoch=1, first_step=2)
    for step in range(2, 6):
        assert next(batches).records_B.tolist() == plan.step(1, step).tolist()
    batches.close()  # ends what was begun, and begins no more
    count = len(begun)
    assert 4 <= count <= 4 + ahead
    rest = Reader(loader, plan, 0, 1)(epoch=1, first_step=38)
    assert [one.records_B.tolist() for one in rest] == [plan.step(1, step).tolist() for step in (38, 39)]
    assert len(begun) == count + 2


def test_a_label_outside_the_classes_is_named_with_part_and_record(tmp_path):
    loader = opened(tmp_path, [row(0, "ACGT", label="none"), row(1, "ACGT", label="promoter")])
    with pytest.raises(DataError, match=r"part-000000.parquet: record 1 has label 'promoter', the classes are none, s"):
        loader.load(np.arange(2), epoch=0)


def test_letters_are_masked_by_chance_and_by_the_sample(tmp_path):
    rows = [row(record, "ACGT" * 50, label="site") for record in range(40)]
    loader = opened(tmp_path, rows, augmentation=SequenceAugmentation(mask_fraction=0.2))
    texts = texts_of(loader.load(np.arange(40), epoch=0))
    for text in texts:
        assert all(letter in (wanted, "N") for letter, wanted in zip(text, "ACGT" * 50, strict=True))
    share = "".join(texts).count("N") / 8000
    assert 0.17 < share < 0.23  # 0.2, six standard deviations
    assert len(set(texts)) == 40
    assert texts_of(loader.load(np.array([7]), epoch=0)) == [texts[7]]


def test_what_is_no_dna_has_no_other_strand():
    augmentation = SequenceAugmentation(reverse_complement=True)
    augmentation.check(OneHot(OneHotParams()))
    with pytest.raises(InputError, match="only DNA has a reverse complement"):
        augmentation.check(ProteinTokens(ProteinTokensParams()))


@pytest.mark.parametrize(
    ("facts", "encoder", "sentence"),
    [
        (
            {"alphabet": "protein"},
            OneHot(OneHotParams()),
            "holds protein, and the encoder reads dna; .* protein_tokens",
        ),
        (
            {"alphabet": "dna"},
            ProteinTokens(ProteinTokensParams()),
            "holds dna, and the encoder reads protein; .* one_hot",
        ),
        ({"alphabet": "dna", "second_alphabet": "dna"}, OneHot(OneHotParams()), "would see the first members alone"),
    ],
)
def test_letters_that_the_encoder_does_not_read_are_refused(facts, encoder, sentence):
    data = SequenceSet("set", (), "digest", facts)
    with pytest.raises(InputError, match=sentence):
        sequences.KIND.decided(data, encoder, SequenceAugmentation())


def test_rna_is_read_as_dna():
    data = SequenceSet("set", (), "digest", {"alphabet": "rna"})
    assert sequences.KIND.decided(data, OneHot(OneHotParams()), SequenceAugmentation())["in_channels"] == 4
