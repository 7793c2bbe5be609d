# One image for both containers: `docker run IMAGE consumer` and `docker run IMAGE api`.
#
#   docker build -t streamgate .
#
# The bases are arguments, for registries of your own: BUILDER has cargo and a C compiler,
# RUNTIME has glibc, libgcc and certificates, and need have no shell. Behind a proxy that
# inspects TLS, hand over its certificates for the build; they do not stay in the image:
#
#   docker build --secret id=ca,src=/etc/ssl/certs/ca-certificates.crt -t streamgate .
ARG BUILDER=rust:1.95-slim-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILDER} AS build
WORKDIR /build
COPY . .
# What build_info and the labels say; `git rev-parse HEAD`.
ARG REVISION=unknown
# The mounts keep what was fetched and compiled for the next build, outside the image. What is
# ours is compiled anew: files of another checkout may be older than what stands there.
RUN --mount=type=secret,id=ca \
    --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target,sharing=locked \
    if [ -s /run/secrets/ca ]; then export CARGO_HTTP_CAINFO=/run/secrets/ca; fi && \
    touch src/lib.rs src/main.rs && \
    STREAMGATE_REVISION="${REVISION}" cargo build --locked --release && \
    cp target/release/streamgate /streamgate

FROM ${RUNTIME}
COPY --from=build /streamgate /streamgate
# It starts on this base, with the libraries it has.
RUN ["/streamgate", "--version"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="streamgate" \
      org.opencontainers.image.description="Runs a DynamoDB stream's handler in your own containers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
# Numeric, so that Kubernetes can see that it is not root; nothing is written to disk.
USER 65532:65532
# The consumer's; the api's public and private ones.
EXPOSE 9090 8080 8081
# For plain Docker and compose. ECS and Kubernetes have probes of their own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/streamgate", "health"]
ENTRYPOINT ["/streamgate"]
