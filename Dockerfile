# liger-server and liger-client in a small image without weights or compiler.
#   scripts/build_image.sh        builds it and queries the server in it
#   docker run --read-only -p 50051:50051 -v "$PWD/build/models:/models:ro" \
#     liger-serve:cpu --model=/models/SmolLM2-135M-Instruct.Q4_1.gguf \
#     --adapter=/usr/share/liger/adapters/smollm2-135m-instruct-liger-gla-r16

FROM debian:bookworm-slim AS build
WORKDIR /src
# The packages alone first: they change seldom, and their layer is reused.
COPY scripts/install_deps.sh scripts/
RUN scripts/install_deps.sh
COPY . .
RUN --mount=type=cache,target=/root/.cache/ccache \
    cmake --preset release -DLIGER_BUILD_TESTS=OFF -DLIGER_BUILD_BENCH=OFF \
    && cmake --build build/release --target liger-server liger-client \
    && install -D --strip --target-directory=/opt/liger/bin \
         build/release/bin/liger-server build/release/bin/liger-client

FROM debian:bookworm-slim AS cpu
LABEL org.opencontainers.image.title="liger-serve" \
      org.opencontainers.image.description="Serves linearized (Liger) language models over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0"
# Copied, not mounted: a builder's cache does not look into what is mounted.
COPY scripts/install_deps.sh /tmp/
RUN /tmp/install_deps.sh --runtime \
    && rm -rf /tmp/install_deps.sh /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=build /opt/liger/bin/ /usr/local/bin/
COPY models/smollm2-135m-instruct-liger-gla-r16/ \
     /usr/share/liger/adapters/smollm2-135m-instruct-liger-gla-r16/
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
