from __future__ import annotations

import pytest

from engine.errors import InputError
from engine.scoring._variant_checks import check_info_keys

HEADER = b'##fileformat=VCFv4.3\n##INFO=<ID=PSI,Number=1,Type=Float,Description="x">\n#CHROM\n'


def test_an_info_key_that_the_header_has_not_stops_the_run():
    check_info_keys((), b"#CHROM\n", path="in.vcf")
    check_info_keys(("PSI",), HEADER, path="in.vcf")
    with pytest.raises(InputError, match=r"in\.vcf.*INFO/PSL.*declares \(PSI\)|INFO/PSL.*declares \(PSI\)"):
        check_info_keys(("PSI", "PSL"), HEADER, path="in.vcf")
    with pytest.raises(InputError, match=r"declares \(none\)"):
        check_info_keys(("PSI",), b"#CHROM\n", path="in.vcf")
