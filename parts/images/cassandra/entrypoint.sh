#!/bin/bash
# The first process of the container. It writes cassandra.yaml from these environment variables of the upstream image
# and of the Kubernetes tutorial's image, each with the prefix CASSANDRA_: SEEDS, CLUSTER_NAME, DC, RACK, NUM_TOKENS,
# LISTEN_ADDRESS (default: POD_IP), BROADCAST_ADDRESS, RPC_ADDRESS, BROADCAST_RPC_ADDRESS, ENDPOINT_SNITCH, DATA
# (default: /cassandra_data if it exists, otherwise /var/lib/cassandra).
set -euo pipefail
[[ ${1-} != -* ]] || set -- cassandra "$@"
[[ ${1-} = cassandra ]] || exec "$@"

# Quotes any value for YAML.
text() { local s=${1//\'/\'\'}; printf "'%s'" "${s//$'\n'/ }"; }

[[ -n ${CASSANDRA_DATA-} || ! -d /cassandra_data ]] || export CASSANDRA_DATA=/cassandra_data
data=${CASSANDRA_DATA:-/var/lib/cassandra}
address=${CASSANDRA_LISTEN_ADDRESS:-${POD_IP:-auto}}
[[ $address != auto ]] || address=$(hostname -i | cut -d' ' -f1)
cat > "$CASSANDRA_CONF/cassandra.yaml" << YAML
cluster_name: $(text "${CASSANDRA_CLUSTER_NAME:-Test Cluster}")
num_tokens: ${CASSANDRA_NUM_TOKENS:-16}
allocate_tokens_for_local_replication_factor: 3
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
authenticator: AllowAllAuthenticator
authorizer: AllowAllAuthorizer
role_manager: CassandraRoleManager
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{ seeds: $(text "${CASSANDRA_SEEDS:-$address}") }]
listen_address: $(text "$address")
broadcast_address: $(text "${CASSANDRA_BROADCAST_ADDRESS:-$address}")
rpc_address: $(text "${CASSANDRA_RPC_ADDRESS:-0.0.0.0}")
broadcast_rpc_address: $(text "${CASSANDRA_BROADCAST_RPC_ADDRESS:-${CASSANDRA_BROADCAST_ADDRESS:-$address}}")
endpoint_snitch: $(text "${CASSANDRA_ENDPOINT_SNITCH:-GossipingPropertyFileSnitch}")
storage_port: 7000
ssl_storage_port: 7001
native_transport_port: 9042
start_native_transport: true
data_file_directories: [$(text "$data/data")]
commitlog_directory: $(text "$data/commitlog")
saved_caches_directory: $(text "$data/saved_caches")
hints_directory: $(text "$data/hints")
cdc_raw_directory: $(text "$data/cdc_raw")
commitlog_sync: periodic
commitlog_sync_period: 1000ms
commitlog_segment_size: 8MiB
commitlog_total_space: 64MiB
disk_failure_policy: stop
commit_failure_policy: stop
# Settings for a small server: little memory for data that is not on the disk yet, and few threads.
memtable_heap_space: 32MiB
memtable_offheap_space: 32MiB
memtable_flush_writers: 1
file_cache_size: 16MiB
networking_cache_size: 16MiB
key_cache_size: 4MiB
counter_cache_size: 1MiB
concurrent_reads: 8
concurrent_writes: 8
concurrent_counter_writes: 4
concurrent_compactors: 1
native_transport_max_threads: 16
hinted_handoff_enabled: true
max_hint_window: 3h
# Long timeouts, because a machine of a lab is slower than most.
read_request_timeout: 10000ms
write_request_timeout: 10000ms
range_request_timeout: 20000ms
request_timeout: 20000ms
YAML
cat > "$CASSANDRA_CONF/cassandra-rackdc.properties" << PROPERTIES
dc=${CASSANDRA_DC:-datacenter1}
rack=${CASSANDRA_RACK:-rack1}
PROPERTIES
if [[ $EUID = 0 ]]; then
  mkdir -p "$data"
  [[ $(stat -c %u "$data") = 999 ]] || chown -R cassandra: "$data"
  chown cassandra: "$CASSANDRA_CONF"/*
  exec setpriv --reuid=cassandra --regid=cassandra --clear-groups -- cassandra
fi
exec cassandra
