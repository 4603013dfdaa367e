package cqlfake

import "slices"

// system makes the tables that drivers and stores read of a server.
func (e *engine) system(config Config) {
	version := "5.0.6"
	if config.Flavour == Scylla {
		version = "3.0.8" // what Scylla answers, whatever its own version
	}
	node := []byte("cqlfake host id.") // 16 bytes
	loopback := []byte{127, 0, 0, 1}
	for _, keyspace := range []string{"system", "system_schema", "system_views"} {
		e.keyspaces[keyspace] = map[string]*table{}
	}
	features, scylla := "", [][]byte(nil)
	if config.Flavour == Scylla {
		features = " supported_features text,"
		scylla = [][]byte{[]byte([]string{NoTablets: "CDC", BareTablets: "CDC,TABLETS", FullTablets: "CDC,LWT_WITH_TABLETS,TABLETS"}[config.Tablets])}
	}
	for _, source := range []string{
		`CREATE TABLE system_schema.tables (keyspace_name text, table_name text, PRIMARY KEY ((keyspace_name), table_name))`, // first, as it names the others
		`CREATE TABLE system_schema.keyspaces (keyspace_name text PRIMARY KEY, durable_writes boolean, replication map<text, text>)`,
		`CREATE TABLE system.local (key text PRIMARY KEY, broadcast_address inet, cluster_name text, data_center text, host_id uuid, listen_address inet,
			partitioner text, rack text, release_version text, rpc_address inet, schema_version uuid,` + features + ` tokens set<text>)`,
		`CREATE TABLE system.peers (peer inet PRIMARY KEY, data_center text, host_id uuid, rack text, release_version text, rpc_address inet, schema_version uuid, tokens set<text>)`,
		`CREATE TABLE system.peers_v2 (peer inet, peer_port int, data_center text, host_id uuid, rack text, release_version text, native_address inet, native_port int, schema_version uuid, tokens set<text>, PRIMARY KEY ((peer), peer_port))`,
		`CREATE TABLE system.config (name text PRIMARY KEY, value text)`,
		`CREATE TABLE system_views.settings (name text PRIMARY KEY, value text)`,
		`CREATE TABLE system_schema.scylla_keyspaces (keyspace_name text PRIMARY KEY, initial_tablets int)`,
	} {
		statement, _, err := parse(source)
		if err != nil {
			panic(err) // of this text
		}
		e.define(statement)
	}
	e.put(name{"system", "local"}, slices.Concat([][]byte{
		[]byte("local"), loopback, []byte("cqlfake"), []byte("datacenter1"), node, loopback,
		[]byte("org.apache.cassandra.dht.Murmur3Partitioner"), []byte("rack1"), []byte(version), loopback, node,
	}, scylla, [][]byte{encodeSet("0")})...)
	settings := name{"system_views", "settings"}
	if config.Flavour == Scylla {
		settings = name{"system", "config"}
		e.put(name{"system_schema", "tables"}, []byte("system"), []byte("scylla_local"))
	}
	e.put(settings, []byte("commitlog_sync"), []byte(config.CommitlogSync))
	e.put(settings, []byte("paxos_variant"), []byte("v2"))
}
