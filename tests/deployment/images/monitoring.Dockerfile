# Stands in for an official image of monitoring: its program, its user and its directory, from Debian's package.
ARG BASE
FROM ${BASE}
ARG NAME
ARG PACKAGE
RUN printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
    && apt-get update -q && apt-get install -q -y --no-install-recommends curl ${PACKAGE} && rm -rf /var/lib/apt/lists/* \
    && program=/bin/$(echo ${NAME} | tr - _) && { [ -e $program ] || ln -s /usr/bin/${PACKAGE} $program; } \
    && install -d -o 65534 -g 65534 /${NAME}
# What the official images have too, and what our containers must not mind.
LABEL maintainer="The Prometheus Authors"
EXPOSE 9090
VOLUME /${NAME}
WORKDIR /${NAME}
USER nobody
ENTRYPOINT ["/bin/false"]
CMD ["--config.file=/etc/prometheus/prometheus.yml"]
