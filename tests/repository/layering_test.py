"""Who may include whom, over every #include of the repository (docs/CONVENTIONS.md, Layers)."""

import re

import pytest

from repository_files import CPP_SUFFIXES, ROOT, files

# What each layer may include beside itself. bench/ and tests/ may include everything.
LAYERS = {
    "kernels": set(),
    "engine": {"kernels"},
    "states": {"engine"},
    "scheduler": {"states", "engine"},
    "server": {"scheduler", "states", "engine", "proto"},
    "client": {"proto"},
}
UNLIMITED = {"bench", "tests"}

# Third-party headers that only some folders may include: (what, header pattern, folder pattern).
CONFINED = [
    ("CUDA", r"(cuda|cublas|cudnn|cusparse|curand|nvrtc|nvToolsExt|nccl|mma\.h|cub/|thrust/|cutlass/"
             r"|cute/|cooperative_groups)", r"kernels/cuda/|engine/cuda_"),
    ("gRPC and protobuf", r"(grpc|grpcpp|google/protobuf)(/|\.h)", r"server/|client/"),
    ("Prometheus", r"prometheus/", r"server/"),
    ("command-line parsing", r"CLI/", r"server/|client/"),
    ("the Redis client", r"hiredis/", r"states/redis_"),
    ("logging", r"spdlog/", r"server/|client/"),
]
# ThreadSanitizer reports false races on absl::Mutex; Debian's Abseil has no absl/log.
FORBIDDEN = [
    (r"absl/synchronization/", r"engine/|states/|scheduler/|kernels/", "use std::mutex"),
    (r"absl/log/", r"", "not in Debian 12's Abseil"),
    (r"(absl|nlohmann)/", r"kernels/", "kernels include the standard library alone"),
]

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)


def layer_of(header: str) -> str | None:
    if re.match(r"(liger/v1|google/rpc)/.*\.pb\.h$", header):
        return "proto"
    top = header.split("/")[0]
    return top if top in LAYERS or top in UNLIMITED else None


def violations(path: str, text: str) -> list[str]:
    """What the includes of a file, named relative to the root, do against the rules."""
    own = path.split("/")[0]
    if own in UNLIMITED:
        return []
    found = []
    for quote, header in INCLUDE.findall(text):
        target = layer_of(header)
        if target is not None and target != own and target not in LAYERS[own]:
            found.append(f"{path}: {own}/ may not include {header}")
        if quote == '"' and ("/" not in header or header.startswith(".")):
            found.append(f'{path}: "{header}" is not a path from the root')
        for what, pattern, folders in CONFINED:
            if re.match(pattern, header) and not re.match(folders, path):
                found.append(f"{path}: {header}: {what} belongs in {folders} alone")
        for pattern, folders, why in FORBIDDEN:
            if re.match(pattern, header) and re.match(folders, path):
                found.append(f"{path}: {header}: {why}")
    return found


def test_every_include_obeys_the_layers():
    found = []
    for path in files(*CPP_SUFFIXES):
        found += violations(str(path.relative_to(ROOT)), path.read_text())
    assert not found, "\n" + "\n".join(found)


def test_every_source_belongs_to_a_layer():
    known = set(LAYERS) | UNLIMITED
    strays = [str(p.relative_to(ROOT)) for p in files(*CPP_SUFFIXES)
              if p.relative_to(ROOT).parts[0] not in known]
    assert not strays, strays


@pytest.mark.parametrize("path, include, allowed", [
    ("engine/a.cc", '#include "kernels/cpu/kernels.h"', True),
    ("engine/a.cc", '#include "scheduler/scheduler.h"', False),
    ("kernels/cpu/a.cc", '#include "engine/engine.h"', False),
    ("kernels/cpu/a.cc", '#include <immintrin.h>', True),
    ("kernels/cpu/a.cc", '#include "absl/status/status.h"', False),
    ("scheduler/a.cc", '#include "kernels/cpu/kernels.h"', False),
    ("scheduler/a.cc", '#include "states/prefix_cache.h"', True),
    ("states/a.cc", '#include "scheduler/request.h"', False),
    ("scheduler/a.cc", '  #  include "absl/synchronization/mutex.h"', False),
    ("scheduler/a.cc", '#include <grpcpp/grpcpp.h>', False),
    ("client/a.cc", '#include "liger/v1/generation.grpc.pb.h"', True),
    ("client/a.cc", '#include "engine/engine.h"', False),
    ("client/a.cc", '#include <prometheus/counter.h>', False),
    ("server/a.cc", '#include <prometheus/counter.h>', True),
    ("server/a.cc", '#include "client/client.h"', False),
    ("server/a.cc", '#include "config.h"', False),
    ("server/a.cc", '#include "../engine/engine.h"', False),
    ("server/a.cc", '#include "absl/status/status.h"', True),
    ("engine/cpu_backend.cc", '#include <cuda_runtime.h>', False),
    ("engine/cuda_backend.cc", '#include <cuda_runtime.h>', True),
    ("kernels/cuda/gemm.cu", '#include <cutlass/cutlass.h>', True),
    ("tests/server/a.cc", '#include "engine/engine.h"', True),
])
def test_the_rules_themselves(path, include, allowed):
    assert (violations(path, include) == []) == allowed
