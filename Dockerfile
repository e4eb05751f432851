# The agent's image: one static binary and nothing to run beside it. It is built
# from what `make image` has laid into bin/image, and pulls no other image. Why it
# is made this way, and what each option of `docker run` is for:
# docs/adr/0008-an-image-from-scratch.md
FROM scratch

ARG ROOTFS=bin/image/rootfs.tar
ARG VERSION=dev
ARG REVISION=unknown

LABEL org.opencontainers.image.title="log_capturer" \
      org.opencontainers.image.description="Ships the logs of all Docker containers of a host to Loki" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A tar is unpacked with owners and extended attributes: the binary has the file
# capability CAP_DAC_READ_SEARCH, /var/lib/log_capturer is the user's.
ADD ${ROOTFS} /

# Not root. A number, so that Kubernetes can see it (runAsNonRoot).
USER 65532:65532

EXPOSE 8401
STOPSIGNAL SIGTERM

# Whether it lives, not whether the store does: an outage restarts nobody.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/bin/log_capturer", "healthcheck"]

ENTRYPOINT ["/usr/bin/log_capturer"]
