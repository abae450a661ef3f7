#!/bin/sh
# Makes a certificate for the server, and the authority that signs it. The functions connect by
# verified TLS only, so without this they refuse the server. Postgres' image runs this script once,
# when it creates the cluster.
set -eu
umask 077
cd "$PGDATA"

ec='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650'
# shellcheck disable=SC2086 # several options
openssl req -x509 $ec -subj '/CN=login-etl local authority' \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
    -keyout authority.key -out ca.pem
# The names by which functions and this machine reach the server.
# shellcheck disable=SC2086
openssl req -x509 $ec -CA ca.pem -CAkey authority.key -subj '/CN=postgres' \
    -addext basicConstraints=critical,CA:FALSE \
    -addext subjectAltName=DNS:postgres,DNS:host.docker.internal,DNS:localhost,IP:127.0.0.1 \
    -keyout server.key -out server.pem
# With this key, anybody could make a certificate that the functions trust.
rm authority.key

cat >> postgresql.conf <<'END'
ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server.key'
END
