# One of our binaries on Debian's glibc, as a user that is not root. For users with Docker:
#   docker build --build-arg PACKAGE=fusebox-operator -t localhost/fusebox-operator:dev .
#   docker build --build-arg PACKAGE=user-service -t localhost/user-service:dev .
# `cargo xtask cluster` assembles the same layout without Docker (e2e/cluster/src/images/ours.rs).

FROM rust:1.95-bookworm AS build
ARG PACKAGE
RUN apt-get update \
    && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package "$PACKAGE" && install -D "target/release/$PACKAGE" "/out/usr/bin/$PACKAGE"
# An entrypoint in exec form takes no variable: a link of one name stands for the binary.
RUN mkdir -p /out/tmp && chmod 1777 /out/tmp && ln -s "$PACKAGE" /out/usr/bin/entrypoint

FROM debian:bookworm-slim AS base
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /base
# libc6, libgcc-s1 and ca-certificates alone: no shell, no package manager.
RUN set -eu; \
    mkdir -p etc/ssl/certs; \
    cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/; \
    for package in libc6 libgcc-s1; do \
      dpkg -L "$package" | grep -E '^/(usr/)?lib(64)?/.*\.so(\.[0-9]|$)' | grep -vE '/(gconv|audit)/' | while read -r file; do cp --parents -d "$file" .; done; \
    done; \
    for folder in lib lib64; do \
      [ -e "$folder" ] || [ ! -e "usr/$folder" ] || ln -s "usr/$folder" "$folder"; \
    done; \
    echo 'nonroot:x:65532:65532:nonroot:/:/usr/sbin/nologin' >etc/passwd; \
    echo 'nonroot:x:65532:' >etc/group

FROM scratch
COPY --from=base /base /
COPY --from=build /out /
USER 65532
ENTRYPOINT ["/usr/bin/entrypoint"]
