package cassandra

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// settings are what one node is started with.
type settings struct {
	dir         string // of this node, absolute
	number      int    // from 1
	nodes       int
	cqlPort     int
	storagePort int
	heapMiB     int
	secure      bool
}

func (s settings) securely(secure bool) settings {
	s.secure = secure
	return s
}

func (s settings) in(name string) string { return filepath.Join(s.dir, name) }

// The keystore of a secure node, and what it holds.
const (
	keystoreFile     = "conf/keystore.p12"
	keystorePassword = "nobody else reads this directory"
	certificateFile  = "conf/certificate.pem"
)

// host returns the loopback address of a node.
func host(number int) string { return "127.0.0." + strconv.Itoa(number) }

// token spreads the nodes evenly over the ring of 2^64 tokens.
func token(number, nodes int) int64 {
	const first = -1 << 63
	return first + int64((1<<64-1)/uint64(nodes)*uint64(number-1)) //nolint:gosec // wraps nowhere: below 2^64 - 2^63 from first on
}

// cassandraYAML is the part of cassandra.yaml that differs from the defaults.
type cassandraYAML struct {
	ClusterName string `yaml:"cluster_name"`
	Partitioner string `yaml:"partitioner"`
	NumTokens   int    `yaml:"num_tokens"`
	// A string, as Cassandra reads a list here.
	InitialToken   string         `yaml:"initial_token"`
	EndpointSnitch string         `yaml:"endpoint_snitch"`
	SeedProvider   []seedProvider `yaml:"seed_provider"`

	ListenAddress       string `yaml:"listen_address"`
	StoragePort         int    `yaml:"storage_port"`
	RPCAddress          string `yaml:"rpc_address"`
	NativeTransportPort int    `yaml:"native_transport_port"`
	Authenticator       string `yaml:"authenticator"`
	Authorizer          string `yaml:"authorizer"`

	ClientEncryption *clientEncryption `yaml:"client_encryption_options,omitempty"`

	DataFileDirectories  []string `yaml:"data_file_directories"`
	CommitlogDirectory   string   `yaml:"commitlog_directory"`
	SavedCachesDirectory string   `yaml:"saved_caches_directory"`
	HintsDirectory       string   `yaml:"hints_directory"`
	CDCRawDirectory      string   `yaml:"cdc_raw_directory"`

	AutoBootstrap bool `yaml:"auto_bootstrap"`

	CommitlogSync string `yaml:"commitlog_sync"`
	PaxosVariant  string `yaml:"paxos_variant"`
	AutoSnapshot  bool   `yaml:"auto_snapshot"`

	// How long a start waits for the other nodes, in seconds; Start waits itself.
	BlockForPeersTimeout int `yaml:"block_for_peers_timeout_in_secs"`

	// Small, as many of these share a machine with the tests.
	ConcurrentReads        int    `yaml:"concurrent_reads"`
	ConcurrentWrites       int    `yaml:"concurrent_writes"`
	KeyCacheSize           string `yaml:"key_cache_size"`
	FileCacheSize          string `yaml:"file_cache_size"`
	NetworkingCacheSize    string `yaml:"networking_cache_size"`
	MemtableHeapSpace      string `yaml:"memtable_heap_space"`
	MemtableOffheapSpace   string `yaml:"memtable_offheap_space"`
	CommitlogSegmentSize   string `yaml:"commitlog_segment_size"`
	CommitlogTotalSpace    string `yaml:"commitlog_total_space"`
	MaxHintsSizePerHost    string `yaml:"max_hints_size_per_host"`
	NativeTransportThreads int    `yaml:"native_transport_max_threads"`
}

type clientEncryption struct {
	Enabled          bool   `yaml:"enabled"`
	Optional         bool   `yaml:"optional"`
	Keystore         string `yaml:"keystore"`
	KeystorePassword string `yaml:"keystore_password"`
	StoreType        string `yaml:"store_type"`
}

type seedProvider struct {
	ClassName  string              `yaml:"class_name"`
	Parameters []map[string]string `yaml:"parameters"`
}

// yaml renders cassandra.yaml.
func (s settings) yaml() ([]byte, error) {
	in := s.in
	config := cassandraYAML{
		ClusterName:    "nola local",
		Partitioner:    "org.apache.cassandra.dht.Murmur3Partitioner",
		NumTokens:      1,
		InitialToken:   strconv.FormatInt(token(s.number, s.nodes), 10),
		EndpointSnitch: "SimpleSnitch",
		SeedProvider: []seedProvider{{
			ClassName:  "org.apache.cassandra.locator.SimpleSeedProvider",
			Parameters: []map[string]string{{"seeds": host(1) + ":" + strconv.Itoa(s.storagePort)}},
		}},

		ListenAddress:       host(s.number),
		StoragePort:         s.storagePort,
		RPCAddress:          host(s.number),
		NativeTransportPort: s.cqlPort,
		Authenticator:       "AllowAllAuthenticator",
		Authorizer:          "AllowAllAuthorizer",

		DataFileDirectories:  []string{in("data")},
		CommitlogDirectory:   in("commitlog"),
		SavedCachesDirectory: in("saved_caches"),
		HintsDirectory:       in("hints"),
		CDCRawDirectory:      in("cdc_raw"),

		// All nodes start empty with tokens of their own. A bootstrap would sleep for
		// the ring delay and fail where gossip took longer.
		AutoBootstrap: false,

		CommitlogSync: "batch",
		PaxosVariant:  "v2",

		BlockForPeersTimeout: -1,

		ConcurrentReads:        8,
		ConcurrentWrites:       8,
		KeyCacheSize:           "4MiB",
		FileCacheSize:          "32MiB",
		NetworkingCacheSize:    "32MiB",
		MemtableHeapSpace:      "64MiB",
		MemtableOffheapSpace:   "64MiB",
		CommitlogSegmentSize:   "16MiB",
		CommitlogTotalSpace:    "256MiB",
		MaxHintsSizePerHost:    "64MiB",
		NativeTransportThreads: 64,
	}
	if s.secure {
		config.Authenticator, config.Authorizer = "PasswordAuthenticator", "CassandraAuthorizer"
		config.ClientEncryption = &clientEncryption{Enabled: true, Keystore: in(keystoreFile), KeystorePassword: keystorePassword, StoreType: "PKCS12"}
	}
	out, err := yaml.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("render cassandra.yaml: %w", err)
	}
	return out, nil
}

// logback sends the log to the standard output, which is a file.
const logback = `<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5level %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="out"/></root>
</configuration>
`

// mark is the argument by which a process is known to be this node.
func (s settings) mark() string {
	return "-Dcassandra.config=" + fileURL(filepath.Join(s.dir, "conf", "cassandra.yaml"))
}

// What Cassandra uses of the JDK beyond what modules export, as its own start
// script for Java 17 lists it.
var (
	jdkExports = []string{
		"java.base/java.lang.ref",
		"java.base/jdk.internal.misc",
		"java.base/jdk.internal.ref",
		"java.base/sun.nio.ch",
		"java.management.rmi/com.sun.jmx.remote.internal.rmi",
		"java.rmi/sun.rmi.registry",
		"java.rmi/sun.rmi.server",
		"java.rmi/sun.rmi.transport.tcp",
		"java.sql/java.sql",
		"jdk.attach/sun.tools.attach",
		"jdk.compiler/com.sun.tools.javac.file",
		"jdk.unsupported/sun.misc",
	}
	jdkOpens = []string{
		"java.base/java.io",
		"java.base/java.lang",
		"java.base/java.lang.module",
		"java.base/java.lang.reflect",
		"java.base/java.net",
		"java.base/java.nio",
		"java.base/java.util",
		"java.base/java.util.concurrent",
		"java.base/java.util.concurrent.atomic",
		"java.base/jdk.internal.loader",
		"java.base/jdk.internal.math",
		"java.base/jdk.internal.module",
		"java.base/jdk.internal.ref",
		"java.base/jdk.internal.reflect",
		"java.base/jdk.internal.util.jar",
		"java.base/sun.nio.ch",
		"jdk.management/com.sun.management.internal",
	}
)

// arguments are the command line of java. The class path holds the agent that
// measures objects, as Cassandra does not start without it.
func (s settings) arguments(classPath []string) ([]string, error) {
	agent := ""
	for _, file := range classPath {
		if strings.HasPrefix(filepath.Base(file), "jamm-") {
			agent = file
		}
	}
	if agent == "" {
		return nil, fmt.Errorf("the artifacts of Cassandra %s hold no jamm-*.jar; artifacts.sum is not complete", Version)
	}
	var args []string
	for _, m := range jdkExports {
		args = append(args, "--add-exports="+m+"=ALL-UNNAMED")
	}
	for _, m := range jdkOpens {
		args = append(args, "--add-opens="+m+"=ALL-UNNAMED")
	}
	heap := strconv.Itoa(s.heapMiB) + "m"
	return append(
		args,
		"-Xms"+heap, "-Xmx"+heap,
		"-XX:MaxDirectMemorySize="+heap,
		"-XX:+UseSerialGC",
		"-XX:+ExitOnOutOfMemoryError",
		"-XX:-UsePerfData", // a file in the system's temporary directory
		"-XX:ErrorFile="+filepath.Join(s.dir, "crash.log"),
		"-javaagent:"+agent,
		"-Djava.io.tmpdir="+filepath.Join(s.dir, "tmp"),
		"-Djava.net.preferIPv4Stack=true",
		"-Djava.security.manager=allow",
		"-Djdk.attach.allowAttachSelf=true",
		"-Dio.netty.tryReflectionSetAccessible=true",
		"-Dlogback.configurationFile="+fileURL(filepath.Join(s.dir, "conf", "logback.xml")),
		s.mark(),
		"-Dcassandra.storagedir="+s.dir,
		"-Dcassandra-foreground=yes",
		// Nobody else joins and no data moves, so there is nothing to wait for.
		"-Dcassandra.skip_wait_for_gossip_to_settle=0",
		// How long a node tries to reach the first; nothing sleeps for it without a
		// bootstrap.
		"-Dcassandra.ring_delay_ms=30000",
		"-Dcassandra.shutdown_announce_in_ms=200",
		"-Dcassandra.superuser_setup_delay_ms=0",
		"-classpath", strings.Join(append([]string{filepath.Join(s.dir, "conf")}, classPath...), string(filepath.ListSeparator)),
		"org.apache.cassandra.service.CassandraDaemon",
	), nil
}

func fileURL(path string) string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path)}).String()
}
