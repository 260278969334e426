# Replaces the official image of PostgreSQL for compose.yaml, if that image cannot be pulled.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/*
ENV PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/var/lib/postgresql/data
RUN install -d -o postgres -g postgres "$PGDATA" /run/postgresql
VOLUME /var/lib/postgresql/data
USER postgres
COPY --chmod=755 postgres-entrypoint /usr/local/bin/
ENTRYPOINT ["postgres-entrypoint"]
