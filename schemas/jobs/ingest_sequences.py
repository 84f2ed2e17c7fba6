"""Turn sequences and their labels into checked Parquet shards.

Every record is answered for: it is kept, or rejected with a reason. Keys that can change a row are part of the run's
result key; of those under `execution` only the shard sizes are.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from schemas._base import Name, Names, Option, Spec

PositiveInt = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Paths = Annotated[
    tuple[Text, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(strict=False, min_length=1, max_length=256),
]


class SequenceInputSpec(Spec):
    """What to take in, and which column plays which part."""

    path: Paths
    """one input or several, taken in this order as one: FASTA, FASTQ, CSV, TSV (plain, gzip or BGZF), Parquet, or BED,
    GTF, GFF3 with a reference, told apart by content"""
    id: Name | None = None
    """column of names; unset takes one called id, if there"""
    sequence: Name | None = None
    """column of sequences; unset takes one called sequence"""
    label: Name | None = None
    """column of classes; unset takes one called label, if there"""
    second: Name | None = None
    """column of the other member of a pair, such as the drug of a drug and its target; unset makes no pairs"""
    second_id: Name | None = None
    """column of the other member's names; unset takes one called second_id, if there"""
    position_labels: Name | None = None
    """column with a letter for each letter of the sequence, its class, such as H, E or C; . where it is not known"""
    targets: Names = ()
    """columns of numbers to predict, in this order"""
    group: Name | None = None
    """column of what must not straddle splits (gene, family, donor); unset takes one called group, if there"""
    columns: Names = ()
    """names of the columns, for a table without a header line"""
    delimiter: Literal["tab", "comma", "semicolon"] | None = None
    """what parts the columns; unset tells it from the first line"""
    label_pattern: Text | None = None
    """for FASTA and FASTQ: regular expression searched in the header line, whose first group is the label"""

    group_pattern: Text | None = None
    """regular expression whose first group is the group, searched in the id, or the header line of FASTA and FASTQ"""
    label_from_file: bool = False
    """the label is the name of the input's file, without folder and endings (positive.fa.gz: positive)"""
    group_from_file: bool = False
    """the group is the name of the input's file, without folder and endings"""

    @model_validator(mode="after")
    def _one_origin(self) -> SequenceInputSpec:
        for part in ("label", "group"):
            origins = (part, f"{part}_pattern", f"{part}_from_file")
            given = [name for name in origins if getattr(self, name)]
            if len(given) > 1:
                raise ValueError(f"the {part} comes from one place, yet {' and '.join(given)} are given")
        return self


class LabelsSpec(Spec):
    """A table joined to the records by id."""

    path: Text | None = None
    """CSV, TSV or Parquet with a column of ids; held in memory"""
    id: Name | None = None
    """its column of ids; unset takes one called id"""


class WindowsSpec(Spec):
    """Windows of a reference genome, at the places that the input names."""

    reference: Text | None = None
    """FASTA, plain or bgzipped; the input is then BED, GTF, GFF3, or a table with contig, start, end (0-based) and
    strand; the sequence is that of the strand"""
    length_bp: PositiveInt | None = None
    """length of each window around its anchor; unset takes the place as it is"""
    anchor: Literal["middle", "start", "end"] = "middle"
    """what a window lies around: the middle of its place, or its first or last base as its strand reads"""
    margin_bp: NotNegative = 0
    """more bases on both sides of each window, so that training can shift it by as many"""
    past_ends: Literal["fill", "reject"] = "fill"
    """what lies past an end of the contig is N, or makes the window a reject"""
    feature: Text = "gene"
    """for GTF and GFF3: the feature (third column) whose lines are the records; attributes are columns by name"""
    tracks: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """bigWig files, or BAM files for their coverage: their means over each window, without its margin, are targets"""
    bin_bp: PositiveInt | None = None
    """length of the bins that a track's means are of, as the strand reads; unset makes one of each window"""
    contig_aliases: dict[Name, Name] = Field(default_factory=dict)
    """contig name of the input, and its name in the reference"""


class CleaningSpec(Spec):
    """What a record must be to be kept."""

    alphabet: Literal["dna", "rna", "protein"] = "dna"
    """letters: dna and rna keep A, C, G, T (U is written T), other IUPAC codes become N; protein the amino acids"""
    min_length: PositiveInt = 1
    """fewest letters"""
    max_length: PositiveInt | None = None
    """most letters"""
    max_invalid_fraction: Share = 0.0
    """most letters outside the alphabet, as a share; within the limit they become N or X"""
    max_ambiguous_fraction: Share = 0.1
    """most ambiguous letters (N and its like; B, J, O, U, X, Z of proteins), as a share"""
    duplicates: Literal["sequence", "row", "keep"] = "sequence"
    """reject what repeats an earlier record's sequence, or its sequence, label and targets (row); keep takes all; a
    pair repeats another where both members do"""
    near_duplicates: Annotated[float, Field(gt=0, le=1)] | None = None
    """reject what shares this much of its k-mers (Jaccard index; DNA: 8 letters on either strand, proteins: 5) with an
    earlier kept record; unset looks for equal ones alone. Holds the sequences in memory"""
    conflicts: Literal["reject", "stop"] = "reject"
    """a repeated sequence with another label or target: reject it as a duplicate of its own reason, or stop the run"""
    second_alphabet: Literal["smiles", "dna", "rna", "protein"] = "smiles"
    """what the other member of a pair is: SMILES are checked against the grammar and kept as written"""
    second_max_length: PositiveInt | None = None
    """most letters of the other member of a pair"""
    position_classes: Annotated[str, Field(max_length=64)] = ""
    """letters that label positions, such as HEC; a record with another one is rejected. None declared takes any"""
    position_unknown: Annotated[str, Field(max_length=64)] = ""
    """further letters that say that a position's class is not known, such as -X; they are written as ."""
    classes: Names = ()
    """the classes there are; a record with another label is rejected. None declared takes any label"""
    label_separator: Annotated[str, Field(min_length=1, max_length=4)] | None = None
    """for labels of several classes: what parts them; makes 0/1 targets in the order of classes"""
    allow_missing: bool = False
    """keep records without a label or target, where there is a column of them"""

    @model_validator(mode="after")
    def _limits(self) -> CleaningSpec:
        if self.max_length is not None and self.max_length < self.min_length:
            raise ValueError(f"max_length {self.max_length} is less than min_length {self.min_length}")
        if self.label_separator is not None and not self.classes:
            raise ValueError("label_separator makes one 0/1 target for each class, so classes must be declared")
        if self.conflicts == "stop" and self.duplicates == "keep":
            raise ValueError("conflicts are not looked for where duplicates are kept")
        if self.near_duplicates is not None and self.duplicates != "sequence":
            raise ValueError("near_duplicates go with duplicates: sequence")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class is declared twice")
        return self


class IngestExecutionSpec(Spec):
    """Where and how wide to run. Only the shard sizes can change a byte."""

    executor: Literal["in-process", "ray"] = "in-process"
    """in-process needs no Ray; ray runs the same stages on Ray Data, on this machine or a cluster"""
    workers: PositiveInt | None = None
    """processes; unset takes one per CPU core"""
    address: Text | None = None
    """Ray cluster to join, as host:port or auto; unset starts a private one on this machine"""
    records_per_shard: PositiveInt = 20_000
    """most records in a shard, the unit of work, retry and commit"""
    bytes_per_shard: PositiveInt = 16 << 20
    """most bytes of input text in a shard"""


class IngestSequencesSpec(Spec):
    """Turn sequences and their labels into checked Parquet shards."""

    job: Literal["ingest_sequences"] = "ingest_sequences"
    """the job this spec is for"""
    version: Literal[1] = 1
    """version of this spec's layout"""
    input: SequenceInputSpec
    """where the sequences are (IN), and their columns"""
    labels: LabelsSpec = Field(default_factory=LabelsSpec)
    """a labels table joined by id; label, targets and group are then columns of it"""
    windows: WindowsSpec = Field(default_factory=WindowsSpec)
    """take the sequences from a reference"""
    cleaning: CleaningSpec = Field(default_factory=CleaningSpec)
    """what is kept"""
    output: Text
    """run directory: a local path, s3:// or gs://; a run that stopped there is resumed"""
    max_reject_fraction: Share = 0.25
    """most rejected records, as a share; above it the run stops with exit code 3; 1 accepts any share"""
    execution: IngestExecutionSpec = Field(default_factory=IngestExecutionSpec)
    """where and how wide to run"""

    @model_validator(mode="after")
    def _fits(self) -> IngestSequencesSpec:
        windows = self.windows
        if windows.reference is None and (windows.length_bp is not None or windows.margin_bp):
            raise ValueError("windows need a reference to be cut from")
        if windows.reference is None and windows.tracks:
            raise ValueError("tracks are read at windows of a reference: give it")
        if windows.bin_bp is not None and (windows.length_bp or 0) % windows.bin_bp + (windows.length_bp is None):
            raise ValueError(f"windows of {windows.length_bp} bases are no whole number of bins of {windows.bin_bp}")
        if windows.bin_bp is not None and not windows.tracks:
            raise ValueError("bins are of tracks: give one")
        if windows.tracks and self.cleaning.label_separator:
            raise ValueError("classes of several labels are targets, and so are tracks: take one of them")
        if windows.anchor != "middle" and windows.length_bp is None:
            raise ValueError("an anchor is what a window of a given length lies around: give length_bp")
        if self.windows.reference is not None and self.cleaning.alphabet == "protein":
            raise ValueError("windows of a reference are DNA, yet the alphabet is protein")
        if self.input.second is not None and self.cleaning.near_duplicates is not None:
            raise ValueError("near_duplicates are of single sequences, and these are pairs")
        if self.input.second is None and (self.input.second_id or self.cleaning.second_max_length):
            raise ValueError("the other member of a pair is named, yet not its column: give second")
        if self.input.position_labels is None and (self.cleaning.position_classes or self.cleaning.position_unknown):
            raise ValueError("letters of position labels are declared, and no column of them: give position_labels")
        if self.labels.path is not None and (self.input.label_pattern or self.input.label_from_file):
            raise ValueError("labels come from a table, or from header lines or file names, not from both")
        return self


SPEC = IngestSequencesSpec

OPTIONS = (
    Option("input.path", ("IN",)),
    Option("output", ("--output", "-o")),
    Option("labels.path", ("--labels", "-l"), doc="labels table joined by id: CSV, TSV or Parquet", metavar="TABLE"),
    Option("labels.id", ("--labels-id",), metavar="COLUMN"),
    Option("input.id", ("--id",), metavar="COLUMN"),
    Option("input.sequence", ("--sequence",), metavar="COLUMN"),
    Option("input.label", ("--label",), metavar="COLUMN"),
    Option("input.second", ("--second",), metavar="COLUMN"),
    Option("input.second_id", ("--second-id",), metavar="COLUMN"),
    Option("input.position_labels", ("--position-labels",), metavar="COLUMN"),
    Option("input.targets", ("--targets",), form="commas", metavar="COLUMN"),
    Option("input.group", ("--group",), metavar="COLUMN"),
    Option("input.columns", ("--columns",), form="commas", metavar="NAME"),
    Option("input.delimiter", ("--delimiter",), metavar="tab|comma|semicolon"),
    Option("input.label_pattern", ("--label-pattern",), metavar="REGEX"),
    Option("input.group_pattern", ("--group-pattern",), metavar="REGEX"),
    Option("input.label_from_file", ("--label-from-file",)),
    Option("input.group_from_file", ("--group-from-file",)),
    Option("windows.reference", ("--reference", "-f")),
    Option("windows.length_bp", ("--window",), metavar="BP"),
    Option("windows.anchor", ("--anchor",)),
    Option("windows.margin_bp", ("--margin",), metavar="BP"),
    Option("windows.past_ends", ("--past-ends",)),
    Option("windows.feature", ("--feature",)),
    Option("windows.tracks", ("--tracks",), form="commas", metavar="FILE"),
    Option("windows.bin_bp", ("--bin",), metavar="BP"),
    Option("windows.contig_aliases", ("--contig-alias",), doc="NAME=REFERENCE_NAME, repeatable", form="pairs"),
    Option("cleaning.alphabet", ("--alphabet",)),
    Option("cleaning.min_length", ("--min-length",)),
    Option("cleaning.max_length", ("--max-length",)),
    Option("cleaning.max_invalid_fraction", ("--max-invalid",)),
    Option("cleaning.max_ambiguous_fraction", ("--max-ambiguous",)),
    Option("cleaning.second_alphabet", ("--second-alphabet",)),
    Option("cleaning.second_max_length", ("--second-max-length",)),
    Option("cleaning.position_classes", ("--position-classes",), metavar="LETTERS"),
    Option("cleaning.position_unknown", ("--position-unknown",), metavar="LETTERS"),
    Option("cleaning.duplicates", ("--duplicates",)),
    Option("cleaning.near_duplicates", ("--near-duplicates",), metavar="JACCARD"),
    Option("cleaning.conflicts", ("--conflicts",)),
    Option("cleaning.classes", ("--classes",), form="commas", metavar="NAME"),
    Option("cleaning.label_separator", ("--label-separator",)),
    Option("cleaning.allow_missing", ("--allow-missing",)),
    Option("max_reject_fraction", ("--max-rejects",)),
    Option("execution.executor", ("--executor",)),
    Option("execution.address", ("--address",)),
    Option("execution.workers", ("--workers", "-j")),
    Option("execution.records_per_shard", ("--records-per-shard",)),
)
"""The one place where the command's options meet the keys of the spec."""
