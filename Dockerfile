# The same version as in rust-toolchain.toml.
ARG RUST_VERSION=1.95.0

FROM rust:${RUST_VERSION}-slim-bookworm AS build
# aws-lc, the TLS library, is built from C; the runtime image takes the CA certificates from here.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# Dependencies first: this layer is built again only when a manifest or the lock file changes. Cargo wants a
# source file for each target it is told about. rust-toolchain.toml stays outside, or rustup would fetch the
# components of developers.
COPY Cargo.toml Cargo.lock ./
COPY testbed/Cargo.toml testbed/
COPY xtask/Cargo.toml xtask/
RUN mkdir -p src tests/it testbed/src xtask/src \
    && touch src/lib.rs tests/it/main.rs testbed/src/lib.rs \
    && echo 'fn main() {}' | tee src/main.rs > xtask/src/main.rs \
    && cargo build --release --locked --package lockstep

COPY src src
# Cargo goes by time, and the copies may be older than the stand-ins above.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --package lockstep \
    && target/release/lockstep version

FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/target/release/lockstep /usr/local/bin/lockstep
# A number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/lockstep"]
CMD ["run"]
