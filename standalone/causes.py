"""Why an engine died, by its last words. Pure.

Rule: a cause is named only by words that vLLM (0.18 to 0.32), CUDA or the kernel are known to use;
what is not known is left to the words themselves. `lasting` means that another start ends alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

KILLED = 128 + 9
WORDS_MAX = 300


@dataclass(frozen=True, slots=True)
class Cause:
    """What was wrong, and what to do."""

    text: str
    lasting: bool = False


_NO_FLAG = r"unrecognized arguments:.* --shutdown-timeout"
_KNOWN: tuple[tuple[str, Cause], ...] = (
    (_NO_FLAG, Cause("this vLLM is older than 0.18: upgrade it", True)),
    (r"unrecognized arguments:", Cause("this vLLM has no such flag: see vllm serve --help", True)),
    (r"error: argument ", Cause("vLLM does not take that value of a flag", True)),
    (
        r"is less than desired GPU memory utilization",
        Cause(
            "other programs hold the GPU's memory (nvidia-smi shows them): end them, or give "
            "a smaller --gpu-memory-utilization"
        ),
    ),
    (
        r"is larger than the available KV cache|No available memory for the cache blocks",
        Cause("no room for one whole context: give --max-model-len, smaller than now", True),
    ),
    (
        r"CUDA out of memory|torch\.OutOfMemoryError|CUDA error: out of memory",
        Cause(
            "the GPU's memory is full: give a smaller --gpu-memory-utilization or --max-num-seqs"
        ),
    ),
    (
        r"Failed to infer device type|No CUDA GPUs are available|CUDA driver version is insuff",
        Cause("this vLLM can't use a GPU here: see nvidia-smi, or install its CPU build", True),
    ),
    (
        r"uncorrectable ECC|GPU is lost|fallen off the bus|unspecified launch failure",
        Cause("the GPU failed: see `ctl describe node`, and dmesg"),
    ),
    (
        r"gated repo|GatedRepoError|401 Client Error",
        Cause("the model wants a token: set HF_TOKEN, or give the folder of a copy", True),
    ),
    (
        r"valid model identifier|Invalid repository ID|Repository Not Found",
        Cause("no such model or folder: see --serve", True),
    ),
    (
        r"LocalEntryNotFoundError|outgoing traffic has been disabled|couldn't connect to 'https",
        Cause("the model is not on this machine and can't be fetched: give its folder", True),
    ),
    (r"No space left on device", Cause("a disk is full")),
    (r"Address already in use", Cause("another program has taken its port")),
    (r"Too many open files", Cause("raise ulimit -n")),
)


_ERROR = re.compile(r"(Error|error|Exception): ")
_NOT_THE_ROOT = "See root cause above"


_PREFIX = re.compile(r"^(\(.*?\) )?[A-Z]+ [\d-]+ [\d:]+ (\[.*?\] )?")


def plain(line: str) -> str:
    """A line of vLLM's log without who wrote it, when and where; of a progress bar the newest."""
    return _PREFIX.sub("", line.rpartition("\r")[2]).strip()


def known(words: str, code: int) -> Cause | None:
    """The cause that the end of a log and an exit status tell; the latest words count."""
    found = [(m.start(), cause) for text, cause in _KNOWN for m in re.finditer(text, words)]
    if found:
        return max(found, key=lambda item: item[0])[1]  # of two at one place the first
    if code == KILLED:
        return Cause("SIGKILL from elsewhere: the machine ran out of memory, if dmesg says so")
    return None


def said(words: str) -> str:
    """The last line that tells something: an error's, else the last."""
    lines = [line for text in words.split("\n") if (line := plain(text))]
    errors = [line for line in lines if _ERROR.search(line) and _NOT_THE_ROOT not in line]
    return next(reversed(errors or lines), "no word")[-WORDS_MAX:]
