"""Blocks are never lost, never shared by mistake, and prompts that begin alike share them."""

from collections.abc import Sequence

from sim.kv import BlockTable, KvCache


def _admit(kv: KvCache, table: BlockTable, hashes: Sequence[int], hits: int, tokens: int) -> bool:
    if not kv.fits(hashes, hits, tokens):
        return False
    kv.adopt(table, hashes, hits)
    return kv.grow(table, hashes, tokens)


def test_growth_takes_whole_blocks_and_release_returns_them() -> None:
    kv = KvCache(num_gpu_blocks=11, block_size=16)
    table = BlockTable()
    assert kv.grow(table, (), 17)
    assert (len(table), kv.used, kv.usage_ratio) == (2, 2, 0.2)
    assert kv.grow(table, (), 32)
    assert kv.used == 2
    kv.release(table)
    assert (len(table), kv.used) == (0, 0)


def test_a_refused_growth_changes_nothing() -> None:
    kv = KvCache(num_gpu_blocks=3, block_size=16)
    table = BlockTable()
    assert kv.grow(table, (), 32)
    assert not kv.grow(table, (), 33)
    assert (len(table), kv.used) == (2, 2)


def test_full_prompt_blocks_are_shared_while_in_use_and_after() -> None:
    kv = KvCache(num_gpu_blocks=11, block_size=16)
    first, second = BlockTable(), BlockTable()
    hashes = (101, 102)
    assert kv.hits(hashes, 2) == 0
    assert _admit(kv, first, hashes, 0, 40)
    assert kv.hits(hashes, 2) == 2
    assert kv.hits(hashes, 1) == 1
    assert _admit(kv, second, hashes, 2, 40)
    assert kv.used == 4  # two shared, one more for each
    kv.release(first)
    kv.release(second)
    assert (kv.used, kv.idle, kv.hits(hashes, 2)) == (0, 2, 2)


def test_cached_blocks_make_way_tail_first() -> None:
    kv = KvCache(num_gpu_blocks=4, block_size=16)
    old, new = BlockTable(), BlockTable()
    assert _admit(kv, old, (1, 2, 3), 0, 48)
    kv.release(old)
    assert _admit(kv, new, (), 0, 16)
    assert (kv.used, kv.idle, kv.hits((1, 2, 3), 3)) == (1, 2, 2)


def test_an_admission_counts_the_idle_blocks_it_revives() -> None:
    kv = KvCache(num_gpu_blocks=4, block_size=16)
    first, blocker, second = BlockTable(), BlockTable(), BlockTable()
    assert _admit(kv, first, (1,), 0, 16)
    kv.release(first)
    assert _admit(kv, blocker, (), 0, 32)
    assert not _admit(kv, second, (1,), 1, 32)  # one cached block and one new, but one is free
    assert (len(second), kv.used, kv.idle) == (0, 2, 1)
    assert _admit(kv, second, (1,), 1, 16)


def test_the_same_block_computed_twice_at_once_is_kept_twice() -> None:
    kv = KvCache(num_gpu_blocks=11, block_size=16)
    first, second = BlockTable(), BlockTable()
    assert _admit(kv, first, (1,), 0, 16)
    assert _admit(kv, second, (1,), 0, 16)
    assert kv.used == 2
    kv.release(first)
    kv.release(second)
    assert (kv.used, kv.idle) == (0, 1)
