"""What a machine has left, read from trees of files as kernels of both kinds show them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from symphony.hosts.local import LocalHost
from symphony.hosts.resources import read_resources

GIB_KB = 1024 * 1024
MIB = 1024 * 1024


class Machine:
    """A process file system and control groups below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        self.write("proc/meminfo", f"MemTotal: {16 * GIB_KB} kB\nMemAvailable: {8 * GIB_KB} kB\n")
        self.write("proc/self/cgroup", "0::/\n")
        self.write("proc/pressure/memory", "some avg10=1.25 avg60=0.00 avg300=0.00 total=1\nfull\n")
        self.cgroup.mkdir()

    def write(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def group(self, path: str, limit: str, used_mb: int, cache_mb: int = 0) -> None:
        self.write(f"cgroup/{path}/memory.max", f"{limit}\n")
        self.write(f"cgroup/{path}/memory.current", f"{used_mb * MIB}\n")
        stat = f"anon 1\ninactive_file {cache_mb * MIB}\nactive_file 0\n"
        self.write(f"cgroup/{path}/memory.stat", stat)

    def read(self, *directories: str, agents: Sequence[int] = ()):
        return read_resources(
            "here", directories, agents=agents, proc=self.proc, cgroup=self.cgroup
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_control_groups_the_machine_counts(machine: Machine) -> None:
    found = machine.read()
    assert (found.free_memory_mb, found.memory_limit) == (8192, "machine")
    assert found.memory_pressure == 1.25
    assert found.faults == ()


def test_the_limit_of_a_container_counts_where_it_is_nearer(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/service\n")
    machine.group("service", str(1024 * MIB), used_mb=900, cache_mb=100)
    found = machine.read()
    assert found.free_memory_mb == 224
    assert found.memory_limit.endswith("cgroup/service")


def test_the_limit_of_a_group_above_counts_too(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/slice/service\n")
    machine.group("slice/service", "max", used_mb=100)
    machine.group("slice", str(512 * MIB), used_mb=500)
    assert machine.read().free_memory_mb == 12


def test_a_path_outside_of_the_mount_stands_for_the_mount(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/../../elsewhere\n")
    machine.group(".", str(300 * MIB), used_mb=100)
    assert machine.read().free_memory_mb == 200


def test_control_groups_of_version_1_are_read(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "4:memory:/job\n2:cpu,cpuacct:/\n0::/\n")
    machine.write("cgroup/memory/job/memory.limit_in_bytes", f"{600 * MIB}\n")
    machine.write("cgroup/memory/job/memory.usage_in_bytes", f"{500 * MIB}\n")
    stat = f"inactive_file 0\ntotal_inactive_file {20 * MIB}\ntotal_active_file {30 * MIB}\n"
    machine.write("cgroup/memory/job/memory.stat", stat)
    machine.write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    machine.write("cgroup/memory/memory.usage_in_bytes", f"{9000 * MIB}\n")
    assert machine.read().free_memory_mb == 150


def test_a_group_beyond_its_limit_has_less_than_nothing(machine: Machine) -> None:
    machine.group(".", str(100 * MIB), used_mb=130)
    found = machine.read().free_memory_mb
    assert found is not None
    assert found < 0


def test_what_can_not_be_read_is_none_with_its_reason(tmp_path: Path) -> None:
    found = read_resources("here", (), proc=tmp_path / "no", cgroup=tmp_path / "no")
    assert (found.free_memory_mb, found.free_disk_mb, found.memory_pressure) == (None, None, None)
    assert found.faults[0].startswith("free memory of the machine: ")
    assert len(found.faults) == 2


@pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\n", "MemAvailable: many kB\n"])
def test_a_meminfo_that_says_nothing_is_a_fault(machine: Machine, text: str) -> None:
    machine.write("proc/meminfo", text)
    found = machine.read()
    assert found.free_memory_mb is None
    assert len(found.faults) == 1


def test_the_fullest_file_system_counts(machine: Machine, tmp_path: Path) -> None:
    here = os.statvfs(tmp_path)
    found = machine.read(str(tmp_path), str(tmp_path / "is" / "not" / "there" / "yet"))
    assert found.free_disk_mb is not None
    assert abs(found.free_disk_mb - here.f_bavail * here.f_frsize // MIB) < 4096
    assert found.disk_path.startswith(str(tmp_path))


async def test_this_machine_can_be_read(tmp_path: Path) -> None:
    found = await LocalHost(name="box").resources([str(tmp_path)])
    assert found.host == "box"
    assert found.free_memory_mb is not None
    assert found.free_disk_mb is not None


def test_the_memory_of_agents_is_the_mean_of_their_trees(machine: Machine) -> None:
    for pid, dirty_kb, children in ((11, 4096, "12 13"), (12, 2048, ""), (21, 10240, "")):
        machine.write(f"proc/{pid}/smaps_rollup", f"Rss: 9 kB\nPrivate_Dirty: {dirty_kb} kB\n")
        machine.write(f"proc/{pid}/task/{pid}/children", children)
    # A child that has just ended takes nothing away from what is known; an agent that has is none.
    found = machine.read(agents=[11, 21, 99])
    assert found.agent_memory_mb == 8
    assert found.faults == machine.read().faults
    assert machine.read(agents=[99]).agent_memory_mb is None
    assert machine.read().agent_memory_mb is None
