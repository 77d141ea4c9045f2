"""Keys on paper: what people do to them when they type."""

from __future__ import annotations

import random

import pytest

from headstart import errors, repository
from headstart.repository import keys, paper
from headstart.repository.keys import Secrets
from headstart.repository.repo import Repository
from tests.kit import stores
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

SECRETS = Secrets.of(bytes(range(96)))


def test_the_lines_are_these_for_ever() -> None:
    printed = paper.lines(SECRETS)
    assert printed[0] == "000G-40R4-0M30-E209-185R-VQRB"
    assert len(printed) == paper.LINES == 8
    assert all(len(line) == 29 and set(line) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-") for line in printed)
    assert paper.secrets_of(printed) == SECRETS


@pytest.mark.parametrize(
    "how", [str.lower, lambda line: line.replace("-", " "), lambda line: f"  {line.replace('-', '')}\n"]
)
def test_spaces_cases_and_hyphens_do_not_matter(how: object) -> None:
    assert paper.secrets_of([how(line) for line in paper.lines(SECRETS)]) == SECRETS  # type: ignore[operator]


def test_letters_that_look_like_digits() -> None:
    source = Secrets.of(random.Random(1).randbytes(96))
    typed = [line.replace("0", "O").replace("1", "l") for line in paper.lines(source)]
    assert typed != paper.lines(source) and paper.secrets_of(typed) == source


def test_every_wrong_letter_is_found_in_its_line() -> None:
    printed = paper.lines(SECRETS)
    for place, right in enumerate(printed[3]):
        if right != "-":
            wrong = "7" if right != "7" else "8"
            with pytest.raises(errors.Usage, match=r"^Line 4 of the paper key is not what was printed"):
                paper.secrets_of([*printed[:3], printed[3][:place] + wrong + printed[3][place + 1 :], *printed[4:]])


def test_lines_that_changed_places_or_are_missing() -> None:
    printed = paper.lines(SECRETS)
    with pytest.raises(errors.Usage, match="Line 2"):
        paper.secrets_of([printed[0], printed[2], printed[1], *printed[3:]])
    with pytest.raises(errors.Usage, match="has 8 lines, not 7"):
        paper.secrets_of(printed[:7])
    for strange in ("", "ü" * 24, "!" * 24, "A" * 1000):
        with pytest.raises(errors.Usage, match="Line 1"):
            paper.part_of(0, strange)


def test_it_opens_a_repository_whose_keys_are_all_lost(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(9 * BLOCK, {2: noise(2)})})
    printed = paper.lines(repo.secrets)
    for name in (*repo.key_names(), "config"):
        repo.store.delete(name)
    with repository.open_with(repo.store, paper.secrets_of(printed)) as again:
        assert samples.restored(again, made.disks[0]).contents == {2: noise(2)}


def test_that_of_another_repository_is_told(repo: Repository) -> None:
    with pytest.raises(errors.WrongPassword, match=repo.id):
        repository.open_with(repo.store, stores.new_repository().secrets)


def test_the_structure_alone_has_none(repo: Repository) -> None:
    with pytest.raises(keys.NoContent):
        paper.lines(repo.secrets.structure_alone())
