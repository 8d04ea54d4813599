"""The KV cache: a pool of blocks, shared by prompts that begin alike.

Only counts and hashes are kept, no contents. One block of the pool is vLLM's null block and is
never handed out. A full prompt block carries its hash; when its last user leaves, it stays cached
(idle) until the room is needed, oldest first. Idle blocks count as free: an idle engine shows 0.
Invariant: used + idle <= capacity.
"""

from collections.abc import Sequence


class BlockTable:
    """The blocks one request holds: shared ones by hash, and a number of its own."""

    __slots__ = ("owned", "published", "shared")

    def __init__(self) -> None:
        self.shared: list[int] = []
        self.owned = 0
        self.published = 0  # leading prompt blocks already offered to the prefix cache

    def __len__(self) -> int:
        return len(self.shared) + self.owned


class KvCache:
    """Allocation, growth, release, and prefix hits. Nothing here decides who is preempted."""

    def __init__(self, num_gpu_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.capacity = num_gpu_blocks - 1
        self._users: dict[int, int] = {}  # hash of a shared block in use -> how many hold it
        self._idle: dict[int, None] = {}  # cached blocks nobody holds, oldest first
        self._owned = 0

    @property
    def used(self) -> int:
        """Blocks some request holds."""
        return len(self._users) + self._owned

    @property
    def idle(self) -> int:
        """Cached blocks that nobody holds."""
        return len(self._idle)

    @property
    def usage_ratio(self) -> float:
        """Share of the pool in use, 0..1."""
        return self.used / self.capacity

    def hits(self, hashes: Sequence[int], limit: int) -> int:
        """How many leading blocks are cached, at most `limit`."""
        count = 0
        for block_hash in hashes[:limit]:
            if block_hash not in self._users and block_hash not in self._idle:
                break
            count += 1
        return count

    def fits(self, hashes: Sequence[int], hits: int, tokens: int) -> bool:
        """Is there room for `tokens` in all, when the first `hits` blocks are cached ones?"""
        idle_hits = sum(block_hash in self._idle for block_hash in hashes[:hits])
        return self._blocks(tokens) - hits + idle_hits <= self.capacity - self.used

    def adopt(self, table: BlockTable, hashes: Sequence[int], hits: int) -> None:
        """Give an empty table its cached blocks."""
        for block_hash in hashes[:hits]:
            self._idle.pop(block_hash, None)
            self._users[block_hash] = self._users.get(block_hash, 0) + 1
            table.shared.append(block_hash)
        table.published = hits

    def grow(self, table: BlockTable, hashes: Sequence[int], tokens: int) -> bool:
        """Make room for `tokens` in all; False changes nothing."""
        need = -(-tokens // self.block_size) - len(table.shared) - table.owned
        if need > self.capacity - len(self._users) - self._owned:
            return False
        if need > 0:
            table.owned += need
            self._owned += need
        if table.published < len(hashes):
            self._publish(table, hashes, tokens)
        while self._idle and len(self._idle) > self.capacity - self.used:
            del self._idle[next(iter(self._idle))]
        return True

    def release(self, table: BlockTable) -> None:
        """Take everything back. The tail goes idle first, so that long prefixes live longest."""
        self._owned -= table.owned
        for block_hash in reversed(table.shared):
            self._users[block_hash] -= 1
            if not self._users[block_hash]:
                del self._users[block_hash]
                self._idle[block_hash] = None
        table.shared.clear()
        table.owned = table.published = 0

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _publish(self, table: BlockTable, hashes: Sequence[int], tokens: int) -> None:
        """Offer the prompt blocks now full; a block somebody else published stays our own."""
        full = min(tokens // self.block_size, len(hashes))
        while table.published < full:
            block_hash = hashes[table.published]
            if block_hash not in self._users and block_hash not in self._idle:
                self._users[block_hash] = 1
                table.shared.append(block_hash)
                table.owned -= 1
                self._owned -= 1
            table.published += 1
