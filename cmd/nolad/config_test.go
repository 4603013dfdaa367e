package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/nolaproject/nola"
)

func TestConfigFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*config)
		want   []string // parts of the message; none: it is good
	}{
		"defaults":  {change: func(*config) {}},
		"loopback6": {change: func(c *config) { c.Listen = "[::1]:7466" }},
		"everybody": {change: func(c *config) { c.Listen = ":7466" }, want: []string{"tls_cert", "token_file"}},
		"insecure":  {change: func(c *config) { c.Listen, c.Insecure = "0.0.0.0:7466", true }},
		"secure": {change: func(c *config) {
			c.Listen, c.TLSCert, c.TLSKey, c.TokenFile = "0.0.0.0:7466", "crt", "key", "tokens"
		}},
		"admin for everybody": {change: func(c *config) { c.AdminListen = "0.0.0.0:7467" }, want: []string{"admin_listen"}},
		"admin on the port":   {change: func(c *config) { c.AdminListen = c.Listen }, want: []string{"a port of its own"}},
		"all at once": {
			change: func(c *config) {
				c.Listen, c.Store, c.Shards, c.TLSKey = "nowhere", "tape", -1, "key"
				c.DrainTimeout, c.Log.Level, c.Log.Format = time.Hour, "loud", "xml"
				c.Limits.Calls, c.Limits.LogBytes = -1, 5
			},
			want: []string{"listen \"nowhere\"", "store", "shards", "tls_key", "drain_timeout", "log.level", "log.format", "limits.calls", "limits.log_bytes"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := config{}.withDefaults()
			tt.change(&c)
			err := c.validate()
			if (err == nil) != (len(tt.want) == 0) {
				t.Fatalf("validate answered %v", err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in %v", part, err)
				}
			}
			var wrong usageError
			if err != nil && !errors.As(err, &wrong) {
				t.Errorf("%v is not of the usage", err)
			}
		})
	}
}

func TestConfigFile(t *testing.T) {
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "nolad.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	c, err := readConfig(write("listen: 127.0.0.1:1\ndrain_timeout: 5s\nlog: {level: debug}\nlimits: {calls: 7}\n"))
	if err != nil || c.Listen != "127.0.0.1:1" || c.DrainTimeout != 5*time.Second || c.Log.Level != "debug" || c.Limits.Calls != 7 {
		t.Errorf("read %+v, %v", c, err)
	}
	if c, err := readConfig(write("")); err != nil || c.withDefaults().Listen != listenDefault {
		t.Errorf("an empty file became %+v, %v", c, err)
	}
	if _, err := readConfig(write("lisen: 127.0.0.1:1\n")); err == nil || !strings.Contains(err.Error(), "lisen") {
		t.Errorf("an unknown field: %v", err)
	}
	// A flag goes over the file, and only one that was given.
	serve := serveCommand()
	if err := serve.ParseFlags([]string{"--listen", "127.0.0.1:2"}); err != nil {
		t.Fatal(err)
	}
	got := c.over(serve.Flags(), config{Listen: "127.0.0.1:2", DataDir: "not given"})
	if got.Listen != "127.0.0.1:2" || got.DataDir != c.DataDir || got.DrainTimeout != c.DrainTimeout {
		t.Errorf("with flags: %+v", got)
	}
}

// TestEveryFlagCounts gives each flag of serve alone: it sets the one field that its
// name says, to what it was given, and no other.
func TestEveryFlagCounts(t *testing.T) {
	fields := map[string]string{ // those whose names differ from their flags
		"allowed-origin": "allowed_origins", "cql-host": "cql.hosts", "log-level": "log.level", "log-format": "log.format",
		"node-name": "cluster.name", "node-weight": "cluster.weight", "node-label": "cluster.labels",
	}
	values := map[string][2]string{ // as it is given, and as the field shows it
		"string": {"x", "x"}, "int": {"7", "7"}, "bool": {"true", "true"}, "duration": {"7s", "7s"},
		"stringSlice": {"x,y", "[x y]"}, "stringToString": {"x=y", "map[x:y]"},
	}
	seen := 0
	serveCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" {
			return // it names the file that the others go over
		}
		seen++
		field := fields[f.Name]
		if field == "" {
			field = strings.ReplaceAll(f.Name, "-", "_")
			for _, section := range []string{"cql", "cluster"} {
				if rest, ok := strings.CutPrefix(field, section+"_"); ok {
					field = section + "." + rest
				}
			}
		}
		value, known := values[f.Value.Type()]
		if !known {
			t.Fatalf("--%s is of type %s, for which this test has no value", f.Name, f.Value.Type())
		}
		var given config
		flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		given.flags(flags)
		if err := flags.Parse([]string{"--" + f.Name + "=" + value[0]}); err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		leaves(reflect.ValueOf(config{}.over(flags, given)), "", got)
		if want := map[string]string{field: value[1]}; !maps.Equal(got, want) {
			t.Errorf("--%s sets %v, want %v", f.Name, got, want)
		}
	})
	if seen < 20 {
		t.Errorf("serve has %d flags: this test sees too few to show anything", seen)
	}
}

// leaves collects the fields of a configuration that are not zero, by their names
// in the file.
func leaves(v reflect.Value, path string, into map[string]string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "" || v.Field(i).IsZero():
		case f.Type.Kind() == reflect.Struct:
			leaves(v.Field(i), path+name+".", into)
		default:
			into[path+name] = fmt.Sprint(v.Field(i).Interface())
		}
	}
}

func TestFiringLine(t *testing.T) {
	at := time.Date(2026, 3, 29, 3, 0, 0, 0, time.UTC)
	ref := nola.ScheduleRef{Target: nola.ActorRef{Namespace: nola.DefaultNamespace, Type: "ticker", ID: "demo"}, ID: "nightly"}
	for name, tt := range map[string]struct {
		o     nola.Occurrence
		reply string
		want  string
	}{
		"fired":  {nola.Occurrence{Outcome: nola.OutcomeFired, OK: true, Started: at.Add(2 * time.Millisecond), Ended: at.Add(5 * time.Millisecond)}, "tick\n1", "fired 2ms late, took 3ms: tick 1"},
		"long":   {nola.Occurrence{Outcome: nola.OutcomeFired, OK: true, Started: at, Ended: at}, strings.Repeat("ä", 100), "took 0s: " + strings.Repeat("ä", replyRunesMax) + "…"},
		"bytes":  {nola.Occurrence{Outcome: nola.OutcomeFired, OK: true, Started: at, Ended: at}, "\xff\xfe", "(2 bytes)"},
		"escape": {nola.Occurrence{Outcome: nola.OutcomeFired, OK: true, Started: at, Ended: at}, "a\x1b[2Jb", "took 0s: a [2Jb"},
		"failed": {nola.Occurrence{Outcome: nola.OutcomeFired, Error: "no money", Attempts: 1}, "", "FAILED after 1 attempts: no money"},
		"range":  {nola.Occurrence{Outcome: nola.OutcomeMissedWindow, Count: 3, Last: at.Add(time.Minute)}, "", "MISSED_WINDOW (3 times, until "},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.Nominal = at
			got := firingLine(ref, tt.o, []byte(tt.reply))
			if !strings.Contains(got, "schedule nightly -> ticker/demo  ") || !strings.Contains(got, tt.want) || strings.ContainsAny(got, "\n\x1b") {
				t.Errorf("the line is %q, want %q in it", got, tt.want)
			}
		})
	}
}

// TestFiringsNeverWait tells more than a terminal takes.
func TestFiringsNeverWait(t *testing.T) {
	stuck := make(gate)
	f := printFirings(stuck)
	for range 3 * firingsQueue {
		f.tell(nola.ScheduleRef{}, nola.Occurrence{}, nil)
	}
	close(stuck)
	f.close()
}

// gate is a writer that waits until it is closed.
type gate chan struct{}

func (g gate) Write(b []byte) (int, error) { <-g; return len(b), nil }

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	c := &certificate{certFile: filepath.Join(dir, "crt"), keyFile: filepath.Join(dir, "key"), log: slog.New(slog.DiscardHandler)}
	if _, err := loadTLS(c.certFile, c.keyFile, c.log); err == nil {
		t.Fatal("a certificate that is not there was read")
	}
	write := func(serial int64, written time.Time) {
		t.Helper()
		writeCertificate(t, c.certFile, c.keyFile, serial)
		for _, f := range []string{c.certFile, c.keyFile} {
			if err := os.Chtimes(f, written, written); err != nil {
				t.Fatal(err)
			}
		}
	}
	serial := func() int64 {
		t.Helper()
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.Int64()
	}
	now := time.Now()
	write(1, now.Add(-time.Hour))
	if err := c.read(); err != nil {
		t.Fatal(err)
	}
	write(2, now)
	if got := serial(); got != 1 {
		t.Errorf("serial %d is used before the files were looked at again", got)
	}
	c.checked = c.checked.Add(-certificateCheck)
	if got := serial(); got != 2 {
		t.Errorf("serial %d is used after the files changed", got)
	}
	if err := os.WriteFile(c.certFile, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.checked = c.checked.Add(-certificateCheck)
	if got := serial(); got != 2 {
		t.Errorf("serial %d is used after the file broke", got)
	}
}

// writeCertificate makes one for localhost, and for ips, that is its own authority.
func writeCertificate(t *testing.T, certFile, keyFile string, serial int64, ips ...net.IP) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IPAddresses: ips}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
