# An image of clerk2pg without a shell, a package manager or root. It contains the program, the C
# library and the CA certificates.
#
#   docker build --tag clerk2pg .
#   docker build --tag clerk-sim --target clerk-sim .    # the simulator, to try clerk2pg without an account

# The scanner of an SBOM finds no packages in the program, but in Cargo.lock, which is in the context.
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true

FROM rust:1-bookworm AS build
WORKDIR /source
COPY . .
# Cargo compares the times of files, and the cached target folder outlives the checkout that filled
# it. A changed file that is older than the build, for example from another checkout, would count as
# built. So all files get a new time. Compiled dependencies stay in the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --release --locked --bin clerk2pg \
    && install -D target/release/clerk2pg /image/usr/bin/clerk2pg
# The libraries that the program links to, at the paths where it expects them.
RUN ldd /image/usr/bin/clerk2pg | grep -o '/[^ ]*' | sort -u | xargs -I{} cp --dereference --parents {} /image \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && install -D -m 644 config.toml /image/etc/clerk2pg/config.toml \
    && install -D -m 644 -t /image/usr/share/doc/clerk2pg LICENSE-* \
    && echo 'clerk2pg:x:65532:65532::/:/nonexistent' >/image/etc/passwd

FROM build AS build-sim
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --release --locked --package clerk-sim --bin clerk-sim \
    && rm /image/usr/bin/clerk2pg && install target/release/clerk-sim /image/usr/bin/clerk-sim

FROM scratch AS clerk-sim
COPY --from=build-sim /image /
USER 65532:65532
ENTRYPOINT ["/usr/bin/clerk-sim"]

FROM scratch AS clerk2pg
LABEL org.opencontainers.image.title="clerk2pg" \
      org.opencontainers.image.description="Keeps a Postgres database in sync with Clerk's users without a webhook" \
      org.opencontainers.image.source="https://github.com/clerk2pg/clerk2pg" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /image /
# A number, so that orchestrators can verify that it is not root.
USER 65532:65532
ENV CLERK2PG_LOG__FORMAT=json
# It is healthy when it is in sync. The first import of a large instance takes time.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10m --retries=3 CMD ["/usr/bin/clerk2pg", "health"]
ENTRYPOINT ["/usr/bin/clerk2pg"]
