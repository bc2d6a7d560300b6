# liger-server and liger-client in small images without weights or compiler, for a CPU and for a GPU.
#   scripts/build_image.sh        builds the CPU's and queries the server in it
#   docker run --read-only -p 50051:50051 -v "$PWD/build/models:/models:ro" \
#     liger-serve:cpu --model=/models/SmolLM2-135M-Instruct.Q4_1.gguf \
#     --adapter=/usr/share/liger/adapters/smollm2-135m-instruct-liger-gla-mixed-rank
#   docker build --target cpu --tag liger-serve:cpu .
#   docker build --target cuda --tag liger-serve:cuda .
#   docker run --gpus all ... liger-serve:cuda --backend=cuda ...

FROM debian:bookworm-slim AS packages
WORKDIR /src
# The packages alone first: they change seldom, and their layer is reused.
COPY scripts/install_deps.sh scripts/
RUN scripts/install_deps.sh

FROM packages AS build
COPY . .
RUN --mount=type=cache,target=/root/.cache/ccache \
    cmake --preset release -DLIGER_BUILD_TESTS=OFF -DLIGER_BUILD_BENCH=OFF \
    && cmake --build build/release --target liger-server liger-client \
    && install -D --strip --target-directory=/opt/liger/bin \
         build/release/bin/liger-server build/release/bin/liger-client

FROM debian:bookworm-slim AS runtime
LABEL org.opencontainers.image.title="liger-serve" \
      org.opencontainers.image.description="Serves linearized (Liger) language models over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0"
# Copied, not mounted: a builder's cache does not look into what is mounted.
COPY scripts/install_deps.sh /tmp/
RUN /tmp/install_deps.sh --runtime \
    && rm -rf /tmp/install_deps.sh /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY models/smollm2-135m-instruct-liger-gla-mixed-rank/ \
     /usr/share/liger/adapters/smollm2-135m-instruct-liger-gla-mixed-rank/
# A container is reached from outside itself, unlike a server started by hand.
ENV LIGER_LISTEN=0.0.0.0:50051 \
    LIGER_HEALTH_LISTEN=0.0.0.0:50052 \
    LIGER_METRICS_LISTEN=0.0.0.0:9464
EXPOSE 50051 50052 9464
# A number, so that Kubernetes can tell it is not root.
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["liger-client", "--server=127.0.0.1:50052", "--timeout=3", "health"]
ENTRYPOINT ["liger-server"]

# The toolkit alone is taken from it: Debian's gRPC is what the project is tested with.
FROM nvidia/cuda:13.0.2-devel-ubuntu22.04 AS toolkit

FROM packages AS build-cuda
COPY --from=toolkit /usr/local/cuda/ /usr/local/cuda/
COPY . .
RUN --mount=type=cache,target=/root/.cache/ccache \
    CUDACXX=/usr/local/cuda/bin/nvcc \
      cmake --preset cuda -DLIGER_BUILD_TESTS=OFF -DLIGER_BUILD_BENCH=OFF \
    && cmake --build build/cuda --target liger-server liger-client \
    && install -D --strip --target-directory=/opt/liger/bin \
         build/cuda/bin/liger-server build/cuda/bin/liger-client

# The driver's libcuda comes from the node: its container toolkit reads the two variables.
FROM runtime AS cuda
COPY --from=toolkit /usr/local/cuda/lib64/libcublasLt.so.13 /usr/local/cuda/lib64/
COPY --from=build-cuda /opt/liger/bin/ /usr/local/bin/
ENV LD_LIBRARY_PATH=/usr/local/cuda/lib64 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Last: what a build without --target makes.
FROM runtime AS cpu
COPY --from=build /opt/liger/bin/ /usr/local/bin/
