package cqlstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/persistence/lane"
)

// Config says how to reach the cluster and how to work on it. Hosts is needed,
// every other zero field takes its default.
type Config struct {
	// Hosts are some of the cluster's nodes, HOST or HOST:PORT (default port 9042).
	// The others are found through them.
	Hosts []string
	// Keyspace holds the tables: default nola; lower-case letters, digits and _.
	Keyspace string
	// Datacenter is the one whose nodes are asked: default that of the first host
	// that answers.
	Datacenter string
	// Username and Password are for a cluster that wants a login.
	Username, Password string
	// TLS, if set, encrypts the connections, and says whom to trust.
	TLS *tls.Config
	// ConnectTimeout bounds each attempt to connect: default 10 s.
	ConnectTimeout time.Duration
	// Timeout is how long one statement may go unanswered: default 5 s. It should
	// be longer than the servers' own time-outs, so that their verdict arrives.
	Timeout time.Duration
	// OnlyHosts asks no nodes but Hosts, for clusters behind a translation of
	// addresses.
	OnlyHosts bool
	// Translate says where nodes are reached that tell other addresses of themselves,
	// as behind a translation of addresses: from what they tell to what to use, both
	// IP:PORT. A node that is not named is reached where it says.
	Translate map[string]string

	// Name tells this node from all others: default the name of the machine and the
	// number of the process. A store that opens under the name of another takes that
	// one's shards without waiting for its lease: two processes of one name take
	// them from each other.
	Name string
	// Address is where other nodes find this one; it is only told.
	Address string
	// Mode is how commits are made: auto (default), quorum or lwt. auto asks the
	// servers when a write is on their disks.
	Mode Mode
	// Shards, if not 0, must be the number of shards that the cluster has.
	Shards int
	// Lease is how long others wait for a sign of life before they take the shards
	// over: default 10 s, 1 s to 5 min. All nodes must agree.
	Lease time.Duration
	// External leaves the lease to the caller: the store gives no sign of life, and
	// Join and Claim are called instead of Acquire.
	External bool
	// CommitTimeout is how long a commit may go undecided before its outcome is
	// answered as unknown: default 30 s.
	CommitTimeout time.Duration
	// ApplyAge is how long a committed effect may wait before it is written into the
	// tables: default 5 s, 10 ms to 1 min.
	ApplyAge time.Duration
	// RingSize is how many entries a lane holds: default lane.RingSize, 8 to that:
	// whoever takes a shard over applies all that a ring has of it in one go.
	RingSize int
	// CacheBytes is about how much the rows of owned shards may take in memory that
	// are in the tables as well: default 64 MiB.
	CacheBytes int64
	// Log hears of changes of state: default slog.Default.
	Log *slog.Logger
	// Now is the wall clock, from which timestamps are made: default time.Now. It
	// need not be right, and may step back.
	Now func() time.Time

	slow *slowNodes // of all sessions
}

// Mode is a choice of lane.Mode.
type Mode string

// The modes.
const (
	ModeAuto   Mode = "auto"
	ModeQuorum Mode = "quorum" // one plain write and one read per commit
	ModeLWT    Mode = "lwt"    // one conditional batch per commit
)

// The defaults of Config.
const (
	KeyspaceDefault       = "nola"
	ShardsDefault         = 256 // of SetupSchema
	portDefault           = 9042
	connectTimeoutDefault = 10 * time.Second
	timeoutDefault        = 5 * time.Second
	leaseDefault          = 10 * time.Second
	commitTimeoutDefault  = 30 * time.Second
	applyAgeDefault       = 5 * time.Second
	cacheBytesDefault     = 64 << 20
)

var keyspaceName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

func (c Config) withDefaults() Config {
	setDefault(&c.Keyspace, KeyspaceDefault)
	setDefault(&c.ConnectTimeout, connectTimeoutDefault)
	setDefault(&c.Timeout, timeoutDefault)
	setDefault(&c.Mode, ModeAuto)
	setDefault(&c.Lease, leaseDefault)
	setDefault(&c.CommitTimeout, commitTimeoutDefault)
	setDefault(&c.ApplyAge, applyAgeDefault)
	setDefault(&c.RingSize, lane.RingSize)
	setDefault(&c.CacheBytes, cacheBytesDefault)
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "node"
		}
		c.Name = host + ":" + strconv.Itoa(os.Getpid())
	}
	if c.slow == nil {
		c.slow = newSlowNodes()
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(len(c.Hosts) > 0, "no hosts: name at least one node of the cluster, HOST:PORT")
	for _, h := range c.Hosts {
		if host, port, err := net.SplitHostPort(h); err == nil {
			n, err := strconv.Atoi(port)
			check(host != "" && err == nil && n > 0 && n < 1<<16, "host %q: write HOST:PORT with a port from 1 to 65535", h)
		} else {
			check(h != "" && !strings.ContainsAny(h, "/ "), "host %q: write HOST or HOST:PORT", h)
		}
	}
	for from, to := range c.Translate {
		_, err1 := netip.ParseAddrPort(from)
		_, err2 := netip.ParseAddrPort(to)
		check(err1 == nil && err2 == nil, "translate %q to %q: write IP:PORT twice", from, to)
	}
	check(keyspaceName.MatchString(c.Keyspace), "keyspace %q: lower-case letters, digits and _, at most 48, a letter first", c.Keyspace)
	check(c.Password == "" || c.Username != "", "a password without a user name")
	check(c.Mode == ModeAuto || c.Mode == ModeQuorum || c.Mode == ModeLWT, "mode %q: must be auto, quorum or lwt", c.Mode)
	check(c.Shards >= 0 && c.Shards <= 1<<16, "shards %d: must lie between 1 and 65,536", c.Shards)
	check(c.Lease >= time.Second && c.Lease <= 5*time.Minute, "lease %s: must lie between 1s and 5m", c.Lease)
	check(c.ApplyAge >= 10*time.Millisecond && c.ApplyAge <= time.Minute, "apply age %s: must lie between 10ms and 1m", c.ApplyAge)
	check(c.RingSize >= 8 && c.RingSize <= lane.AppliesMax, "ring size %d: must lie between 8 and %d", c.RingSize, lane.AppliesMax)
	for name, d := range map[string]time.Duration{"connect timeout": c.ConnectTimeout, "timeout": c.Timeout, "commit timeout": c.CommitTimeout} {
		check(d > 0 && d <= 10*time.Minute, "%s %s: must lie between 0 and 10m", name, d)
	}
	check(c.CacheBytes >= 1<<20, "cache bytes %d: must be at least 1 MiB (1048576)", c.CacheBytes)
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("cqlstore: the configuration is wrong:\n%w", errors.Join(faults...))
}

// The errors of connecting. Each comes wrapped with what to do.
var (
	ErrAway        = errors.New("cqlstore: no node of the cluster answers")
	ErrCredentials = errors.New("cqlstore: the cluster does not take the login")
	ErrNoSchema    = errors.New("cqlstore: the keyspace has no schema of ours")
	ErrSchema      = errors.New("cqlstore: the schema has a version that this program cannot use")
	ErrTablets     = errors.New("cqlstore: this ScyllaDB takes no conditional writes in tablets")
)

// dial opens a session. c is valid and has its defaults.
func (c Config) dial() (*gocql.Session, error) {
	cluster := gocql.NewCluster(c.Hosts...)
	cluster.Port = portDefault
	cluster.ProtoVersion = 4
	cluster.Consistency = gocql.LocalQuorum
	cluster.SerialConsistency = gocql.LocalSerial
	cluster.ConnectTimeout = c.ConnectTimeout
	cluster.Timeout, cluster.WriteTimeout = c.Timeout, c.Timeout
	cluster.NumConns = connsPerHost
	// What is not known to be executed is decided by the lane's machines, never by
	// the driver; what waits to be coalesced is a commit that waits.
	cluster.RetryPolicy = &gocql.SimpleRetryPolicy{NumRetries: 0}
	cluster.WriteCoalesceWaitTime = 0
	cluster.DefaultTimestamp = false
	cluster.DefaultIdempotence = false
	cluster.DisableSkipMetadata = true
	cluster.ReconnectInterval = time.Second
	cluster.ReconnectionPolicy = &gocql.ConstantReconnectionPolicy{MaxRetries: 3, Interval: time.Second}
	cluster.Logger = driverLog{c.Log}
	hosts := gocql.RoundRobinHostPolicy()
	if c.Datacenter != "" {
		hosts = gocql.DCAwareRoundRobinPolicy(c.Datacenter)
		cluster.HostFilter = gocql.DataCentreHostFilter(c.Datacenter) // LOCAL_QUORUM is that of whoever is asked
	}
	cluster.PoolConfig.HostSelectionPolicy = &avoiding{gocql.TokenAwareHostPolicy(hosts), c.slow} // one object per session
	cluster.DisableInitialHostLookup = c.OnlyHosts
	if len(c.Translate) > 0 {
		cluster.AddressTranslator = gocql.AddressTranslatorFunc(c.translated)
	}
	if c.Username != "" {
		cluster.Authenticator = gocql.PasswordAuthenticator{Username: c.Username, Password: c.Password}
	}
	if c.TLS != nil {
		cluster.SslOpts = &gocql.SslOptions{Config: c.TLS.Clone(), EnableHostVerification: !c.TLS.InsecureSkipVerify}
	}
	session, err := cluster.CreateSession()
	if err != nil {
		return nil, c.explain(err)
	}
	return session, nil
}

const connsPerHost = 2

// translated is where a node is reached that tells this address.
func (c Config) translated(ip net.IP, port int) (net.IP, int) {
	to, ok := c.Translate[net.JoinHostPort(ip.String(), strconv.Itoa(port))]
	if !ok {
		return ip, port
	}
	address := netip.MustParseAddrPort(to) // Validate has looked
	return address.Addr().AsSlice(), int(address.Port())
}

// explain says which of the usual mistakes an error of the driver comes from.
func (c Config) explain(err error) error {
	text := err.Error()
	where := strings.Join(c.Hosts, ", ")
	switch {
	case strings.Contains(text, "username and/or password are incorrect"), strings.Contains(text, "Provided username"), strings.Contains(text, "Bad credentials"), strings.Contains(text, "authentication required"):
		return fmt.Errorf("%w: give the name and the password of a role that may log in at %s: %w", ErrCredentials, where, err)
	case c.Datacenter != "" && (errors.Is(err, gocql.ErrNoConnectionsStarted) || strings.Contains(text, "host was filtered")):
		return fmt.Errorf("%w: none of data centre %q is known at %s, or none of it answers; nodetool status shows the names: %w", ErrAway, c.Datacenter, where, err)
	default:
		return fmt.Errorf("%w: is one of %s right, and does it speak CQL there (and TLS, if it was asked for)? %w", ErrAway, where, err)
	}
}

// driverLog tells the driver's own messages at debug level.
type driverLog struct{ log *slog.Logger }

// Print implements gocql.StdLogger.
func (d driverLog) Print(v ...any) { d.say(fmt.Sprint(v...)) }

// Printf implements gocql.StdLogger.
func (d driverLog) Printf(format string, v ...any) { d.say(fmt.Sprintf(format, v...)) }

// Println implements gocql.StdLogger.
func (d driverLog) Println(v ...any) { d.say(fmt.Sprintln(v...)) }

func (d driverLog) say(text string) { d.log.Debug("driver", "says", strings.TrimSpace(text)) }

// Server is what the servers say of themselves.
type Server struct {
	Flavour    string // Cassandra or Scylla
	Version    string
	Datacenter string
	Sync       string // commitlog_sync, or ? if it may not be read
	Replicas   int    // of the keyspace in the data centre; 0 if unknown
	Mode       lane.Mode
	// Tablets says that the keyspace has tablets, BareTablets that the Scylla, one before
	// 2025.4, takes no conditional writes in them. Both at a time cannot work.
	Tablets, BareTablets bool
	// Why says why Mode was chosen. Warning is not empty if what was acknowledged
	// may be lost when all replicas lose their power at once.
	Why, Warning string
	// ClockAhead is how far this machine's clock is ahead of the server's.
	ClockAhead time.Duration
}

// look asks the servers what they are, and chooses a mode.
func (c Config) look(ctx context.Context, l *link) (Server, error) {
	var s Server
	var now time.Time
	if err := l.query(ctx, stmtServerRead).Scan(&s.Version, &s.Datacenter, &now); err != nil {
		return s, describe(stmtServerRead, err)
	}
	s.ClockAhead = c.Now().Sub(now)
	if c.Datacenter != "" {
		s.Datacenter = c.Datacenter
	}
	setting := stmtSettingRead
	s.Flavour = "Cassandra"
	var name string
	switch err := l.query(ctx, stmtScyllaRead).Scan(&name); {
	case err == nil:
		s.Flavour, setting = "Scylla", stmtScyllaSettingRead
		if err := s.lookForTablets(ctx, l, c.Keyspace); err != nil {
			return s, err
		}
	case !errors.Is(err, gocql.ErrNotFound):
		return s, describe(stmtScyllaRead, err)
	}
	if err := l.query(ctx, setting, "commitlog_sync").Scan(&s.Sync); err != nil {
		s.Sync = "?"
	}
	s.Sync = strings.Trim(s.Sync, `"'`)
	replication := map[string]string{}
	if l.query(ctx, stmtKeyspaceRead, c.Keyspace).Scan(&replication) == nil {
		factor := replication[s.Datacenter]
		if factor == "" {
			factor = replication["replication_factor"]
		}
		s.Replicas, _ = strconv.Atoi(factor)
	}
	s.choose(c.Mode)
	return s, nil
}

// lookForTablets asks a Scylla what it has of tablets. One that does not know the
// question has none.
func (s *Server) lookForTablets(ctx context.Context, l *link, keyspace string) error {
	var features string
	if err := l.query(ctx, stmtFeaturesRead).Scan(&features); err != nil && !refused(err) {
		return describe(stmtFeaturesRead, err)
	}
	list := strings.Split(features, ",")
	s.BareTablets = slices.Contains(list, "TABLETS") && !slices.Contains(list, "LWT_WITH_TABLETS")
	var initial *int // null: the keyspace has none
	if err := l.query(ctx, stmtTabletsRead, keyspace).Scan(&initial); err != nil && !errors.Is(err, gocql.ErrNotFound) && !refused(err) {
		return describe(stmtTabletsRead, err)
	}
	s.Tablets = initial != nil
	return nil
}

// choose picks the mode of new lanes.
func (s *Server) choose(asked Mode) {
	synced := s.Sync == "batch" || s.Sync == "group"
	switch {
	case asked == ModeQuorum:
		s.Mode, s.Why = lane.ModeQuorum, "the configuration asks for it"
	case asked == ModeLWT:
		s.Mode, s.Why = lane.ModeLWT, "the configuration asks for it"
	case synced:
		s.Mode, s.Why = lane.ModeQuorum, fmt.Sprintf("commitlog_sync is %s: what is acknowledged is on disk", s.Sync)
	case s.Flavour == "Scylla":
		s.Mode, s.Why = lane.ModeLWT, fmt.Sprintf("commitlog_sync is %s, and Scylla syncs conditional writes alone", s.Sync)
	default:
		s.Mode, s.Why = lane.ModeQuorum, fmt.Sprintf("commitlog_sync is %s, and Cassandra syncs conditional writes no earlier than others", s.Sync)
	}
	if !synced && (s.Flavour != "Scylla" || s.Mode != lane.ModeLWT) {
		s.Warning = fmt.Sprintf("commitlog_sync is %s: if a quorum of replicas loses its power at once, acknowledged work of the last seconds may be lost; set commitlog_sync to batch or group in cassandra.yaml", s.Sync)
	}
}

func modeName(m lane.Mode) string {
	if m == lane.ModeLWT {
		return string(ModeLWT)
	}
	return string(ModeQuorum)
}
