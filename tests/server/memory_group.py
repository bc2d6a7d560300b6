"""A control group that bounds a server's memory, where this machine lets one be made."""

import os
import pathlib

# Version 2, and 1: where groups are made, the file of the limit, and that of the kills.
KINDS = [("/sys/fs/cgroup", "memory.max", "memory.events"),
         ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control")]


class MemoryGroup:
    """`prefix` starts a command inside; empty where no group can be made: then nothing is bounded."""

    def __init__(self, name: str, limit: int):
        self.folder, self.prefix = None, []
        for root, limit_file, self.events in KINDS:
            folder = pathlib.Path(root, f"liger-{name}-{os.getpid()}")
            try:
                folder.mkdir()
                self.folder = folder
                with open(folder / limit_file, "r+") as file:  # there, or it is no group
                    file.write(str(limit))
                self.prefix = ["sh", "-c", 'echo $$ >"$0" && exec "$@"',
                               str(folder / "cgroup.procs")]
                return
            except OSError:  # no such kind here, or it is not ours
                self.close()

    def kills(self) -> int:
        lines = (self.folder / self.events).read_text().split("\n")
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def close(self):
        """After its processes have ended."""
        if self.folder is not None:
            self.folder.rmdir()
            self.folder = None
