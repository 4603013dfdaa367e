package cassandra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/gocql/gocql"

	"github.com/nolaproject/nola/tools/child"
)

const (
	readyTimeout = 2 * time.Minute
	readyPoll    = 100 * time.Millisecond
	probeTimeout = 5 * time.Second
)

// Node is one node of a cluster. Its methods are called by one goroutine at a time.
type Node struct {
	settings
	java      string
	classPath []string
	outlives  bool
	process   *child.Process // nil before the first start and after the end
	record    *record        // of the cluster, shared by its nodes
	dir       string         // of the cluster
}

// Address returns where the node answers CQL, as host:port.
func (n *Node) Address() string {
	return net.JoinHostPort(host(n.number), strconv.Itoa(n.cqlPort))
}

// PID returns the id of the node's process, 0 if it does not run.
func (n *Node) PID() int {
	if n.process == nil {
		return 0
	}
	return n.process.PID()
}

// Log returns the path of the node's log. The log of the run before lies beside
// it under the name with ".old".
func (n *Node) Log() string { return filepath.Join(n.settings.dir, "system.log") }

// Start starts a node that was stopped or killed, with its data, and returns when
// it answers CQL. The others may take a moment longer to see it. On an error it
// does not run.
func (n *Node) Start(ctx context.Context) error {
	if n.process != nil {
		return fmt.Errorf("start Cassandra at %s: it runs already", n.Address())
	}
	if err := n.launch(); err != nil {
		return fmt.Errorf("start Cassandra at %s: %w", n.Address(), err)
	}
	if err := n.until(ctx, answers); err != nil {
		n.Kill()
		return err
	}
	return nil
}

// launch writes the configuration and starts the process.
func (n *Node) launch() error {
	args, err := n.arguments(n.classPath)
	if err != nil {
		return err
	}
	config, err := n.yaml()
	if err != nil {
		return err
	}
	for _, dir := range []string{"conf", "tmp"} {
		if err := os.MkdirAll(filepath.Join(n.settings.dir, dir), 0o700); err != nil {
			return err
		}
	}
	for name, text := range map[string][]byte{"cassandra.yaml": config, "logback.xml": []byte(logback)} {
		if err := os.WriteFile(filepath.Join(n.settings.dir, "conf", name), text, 0o600); err != nil {
			return err
		}
	}
	if n.secure {
		if err := n.certify(); err != nil {
			return err
		}
	}
	if err := os.Rename(n.Log(), n.Log()+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := os.Create(n.Log())
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.java, args...) //nolint:noctx // Stop and Kill end it
	cmd.Dir = n.settings.dir
	cmd.Stdout, cmd.Stderr = log, log
	if n.process, err = child.Spawn(cmd, n.outlives); err != nil {
		return err
	}
	n.record.PIDs[n.number-1] = cmd.Process.Pid
	if err := n.record.write(n.dir); err != nil {
		n.Kill()
		return err
	}
	return nil
}

// certify makes the node's keystore, unless it is there.
func (n *Node) certify() error {
	keystore, certificate := n.in(keystoreFile), n.in(certificateFile)
	if _, err := os.Stat(certificate); err == nil {
		return nil
	}
	for _, args := range [][]string{
		{
			"-genkeypair", "-alias", "node", "-keyalg", "EC", "-validity", "3650", "-storetype", "PKCS12", "-keystore", keystore,
			"-dname", "CN=" + host(n.number), "-ext", "san=ip:" + host(n.number),
		},
		{"-exportcert", "-rfc", "-alias", "node", "-keystore", keystore, "-file", certificate},
	} {
		tool := filepath.Join(filepath.Dir(n.java), "keytool")
		out, err := exec.Command(tool, append(args, "-storepass", keystorePassword)...).CombinedOutput() //nolint:noctx // it takes a second
		if err != nil {
			return fmt.Errorf("make a certificate with %s: %w: %s", tool, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// until asks the node the question again and again until it is answered.
func (n *Node) until(ctx context.Context, question func(context.Context, *gocql.Session) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		last := n.probe(ctx, question)
		if last == nil {
			return nil
		}
		select {
		case <-n.process.Ended():
			n.process = nil
			return fmt.Errorf("wait for Cassandra at %s: it ended before it was ready; from %s:\n%s", n.Address(), n.Log(), n.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("wait for Cassandra at %s: %w (%w); from %s:\n%s", n.Address(), ctx.Err(), last, n.Log(), n.lastWords())
		case <-time.After(readyPoll):
		}
	}
}

// probe asks the node once, and no other.
func (n *Node) probe(ctx context.Context, question func(context.Context, *gocql.Session) error) error {
	dialer := net.Dialer{Timeout: probeTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", n.Address())
	if err != nil {
		return err // the usual answer at first; the driver takes longer for it
	}
	conn.Close()
	config := gocql.NewCluster(host(n.number))
	config.Port = n.cqlPort
	config.ProtoVersion = 4
	config.NumConns = 1
	config.Timeout, config.ConnectTimeout = probeTimeout, probeTimeout
	config.DisableInitialHostLookup = true
	config.Logger = silent{}
	if n.secure {
		config.Authenticator = gocql.PasswordAuthenticator{Username: Superuser, Password: Superuser}
		config.SslOpts = &gocql.SslOptions{CaPath: n.in(certificateFile), EnableHostVerification: true}
	}
	session, err := config.CreateSession()
	if err != nil {
		return err
	}
	defer session.Close()
	return question(ctx, session)
}

// answers asks for what every node knows by itself.
func answers(ctx context.Context, session *gocql.Session) error {
	var version string
	return session.Query("SELECT release_version FROM system.local").WithContext(ctx).Consistency(gocql.One).Scan(&version)
}

// allAlive reads from all replicas of a keyspace that has one on each node.
func allAlive(ctx context.Context, session *gocql.Session) error {
	var status string
	err := session.Query("SELECT status FROM system_distributed.view_build_status WHERE keyspace_name = 'none' AND view_name = 'none'").
		WithContext(ctx).Consistency(gocql.All).Scan(&status)
	if errors.Is(err, gocql.ErrNotFound) {
		return nil
	}
	return err
}

// silent drops what the driver says about a node that is not up yet.
type silent struct{}

func (silent) Print(...any)          {}
func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

func (n *Node) lastWords() []byte {
	text, err := os.ReadFile(n.Log())
	if err != nil {
		return []byte(err.Error())
	}
	return lastWords(text)
}

// lastWords is the part of a log that tells why a node ended: what it says of the
// first error, which much may follow, or else the last lines.
func lastWords(log []byte) []byte {
	for _, mark := range []string{"\nException (", " ERROR "} {
		if i := bytes.Index(log, []byte(mark)); i >= 0 {
			i = bytes.LastIndexByte(log[:i+1], '\n') + 1
			return end(log[i:min(i+outputMax, len(log))])
		}
	}
	return end(log)
}

// Stop has the node write out what it holds and end, and waits for it. A node
// that does not run is left alone; one that does not end in time is killed, and
// the error says so.
func (n *Node) Stop() error {
	if n.process == nil {
		return nil
	}
	err := n.process.Stop()
	n.process = nil
	if err != nil {
		return fmt.Errorf("stop Cassandra at %s: %w", n.Address(), err)
	}
	return nil
}

// Kill ends the node as a crash would, and waits until it is gone.
func (n *Node) Kill() {
	if n.process != nil {
		n.process.Kill()
		n.process = nil
	}
}

// Pause freezes the node: its connections stay open, and nothing is answered until
// Resume.
func (n *Node) Pause() error { return n.signal(syscall.SIGSTOP, "pause") }

// Resume lets a paused node go on.
func (n *Node) Resume() error { return n.signal(syscall.SIGCONT, "resume") }

func (n *Node) signal(s syscall.Signal, what string) error {
	if n.process == nil {
		return fmt.Errorf("%s Cassandra at %s: it does not run", what, n.Address())
	}
	if err := n.process.Signal(s); err != nil {
		return fmt.Errorf("%s Cassandra at %s: %w", what, n.Address(), err)
	}
	return nil
}
