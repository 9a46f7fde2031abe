# Three stages: `tools` is what other images take, `workspace` an example of one that does.
#
#   docker build --target tools -t molecule-tools .
#   docker build --target workspace -t workspace .
#
# In a Dockerfile of one's own:
#
#   COPY --from=molecule-tools /usr/local/bin/ /usr/local/bin/
#   ENTRYPOINT ["/usr/local/bin/entrypoint"]

FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
# The dependencies are a layer of their own, which a change of the program does not build again.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir src applets \
    && touch src/lib.rs \
    && echo 'fn main() {}' > applets/main.rs \
    && cargo build --release --locked --bin molecule-tools \
    && rm -r src applets target/*/release/molecule-tools target/*/release/.fingerprint/molecule-tools-*
COPY src src
COPY applets applets
RUN cargo build --release --locked --bin molecule-tools \
    && mkdir -p /out/usr/local/bin \
    && cp target/*/release/molecule-tools /out/usr/local/bin/ \
    && /out/usr/local/bin/molecule-tools --install /out/usr/local/bin

FROM scratch AS tools
LABEL org.opencontainers.image.title="molecule-tools" \
      org.opencontainers.image.description="One static binary that boots AI-agent workspace containers" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /out/ /

FROM debian:bookworm-slim AS workspace
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 agent
COPY --from=tools /usr/local/bin/ /usr/local/bin/
# In the place of the agent's runtime: it says who it is and what it got, and waits. As PID 1 it must ask for SIGTERM.
RUN printf '#!/bin/sh\nid\necho "molecule-runtime $*"\ntrap "exit 0" TERM\nsleep infinity & wait\n' \
        > /usr/local/bin/molecule-runtime \
    && chmod 755 /usr/local/bin/molecule-runtime
ENTRYPOINT ["/usr/local/bin/entrypoint"]
