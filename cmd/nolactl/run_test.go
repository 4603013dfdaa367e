package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// asCommand makes the test binary be nolactl, so that a shell can run it.
const asCommand = "NOLACTL_AS_COMMAND"

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files; read the diff afterwards")

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// result is what one command line came to.
type result struct {
	out, err string
	code     int
}

// session runs command lines against one server, at a fixed time.
type session struct {
	server string
	in     string
	person bool // sits at a terminal
	env    map[string]string
}

func (s session) run(t *testing.T, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	c := &cli{
		env: func(name string) string {
			if name == "NOLA_SERVER" {
				return s.server
			}
			return s.env[name]
		},
		in: strings.NewReader(s.in), out: &out, errOut: &errOut,
		inIsTerminal: s.person, outIsTerminal: s.person, errIsTerminal: s.person,
		now:   func() time.Time { return start },
		local: time.FixedZone("CET", 3600),
	}
	code := c.run(t.Context(), args)
	return result{out.String(), errOut.String(), code}
}

func commands(root *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{root}
	for _, sub := range root.Commands() {
		all = append(all, commands(sub)...)
	}
	return all
}

func TestExamples(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "nolactl")); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range commands((&cli{}).rootCommand()) {
		var lines []string
		for line := range strings.Lines(cmd.Example) {
			lines = append(lines, strings.TrimSpace(line))
		}
		if len(lines) < 2 {
			t.Errorf("%s: the help has %d examples, want at least 2", cmd.CommandPath(), len(lines))
		}
		if cmd.Short == "" || cmd.Long == "" {
			t.Errorf("%s: the help does not say what it is for", cmd.CommandPath())
		}
		for _, line := range lines {
			t.Run(line, func(t *testing.T) {
				_, url := newFake(t)
				dir := t.TempDir()
				for name, text := range map[string]string{
					"counter.wasm":   "\x00asm\x01\x00\x00\x00",
					"manifest.yaml":  "readonly_operations: [get]\noperations: [inc, add, get]\nenv: {GREETING: hello}\ncapabilities: [KV-GET, KV-PUT]\nlimits: {memory_bytes: 33554432, turn_timeout: 5s}\n",
					"schedules.yaml": "scheduleId: tick\ntarget: {actor: {type: counter, id: alice}, operation: inc}\nspec: {interval: [{every: 2s}]}\n---\nscheduleId: new\ntarget: {actor: {type: counter, id: alice}, operation: inc}\nspec: {cron: [{expression: '@daily'}]}\n",
					"schedule.yaml":  "target:\n  actor: {type: counter, id: alice}\n  operation: inc\nspec:\n  interval:\n    - every: 1h30m\npolicy: {overlap: skip}\n",
					"calendar.yaml":  "dates: [2026-12-24, 2026-12-31..2027-01-01]\nrules:\n- {easter: western, offset: -2}\n- {month: \"5\", day_of_month: \"1\"}\n",
				} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				run := exec.CommandContext(t.Context(), "sh", "-ec", line)
				run.Dir = dir
				run.Env = append(os.Environ(), asCommand+"=1", "NOLA_SERVER="+url, "NOLA_NAMESPACE=", "NOLA_TOKEN=", "PATH="+bin+":"+os.Getenv("PATH"))
				if out, err := run.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", line, err, out)
				}
				if !strings.Contains(line, strings.TrimSuffix(cmd.CommandPath(), " help")) {
					t.Errorf("%q is no example of %s", line, cmd.CommandPath())
				}
			})
		}
	}
}

func TestGolden(t *testing.T) {
	for name, line := range map[string]string{
		"actor-describe":      "actor describe counter/alice",
		"top":                 "top",
		"top-actor":           "top actor --limit 2 --sort time",
		"top-json":            "top namespace -o json",
		"top-bad":             "top shard",
		"backup-create":       "backup create",
		"backup-list":         "backup list",
		"actor-list":          "actor list",
		"actor-list-json":     "actor list -o json",
		"actor-list-limit":    "actor list --limit 1",
		"actor-state":         "actor state counter/alice",
		"actor-timers":        "actor timers counter/alice",
		"calendar-days":       "calendar days bank --limit 4",
		"calendar-get":        "calendar get bank",
		"calendar-list":       "calendar list",
		"calendar-delete-bad": "calendar delete bank --yes",
		"schedule-holidays":   "schedule create new --target counter/alice --op inc --cron 0_9_1B_*_* --holidays bank --exclude-calendar old",
		"invocation-get":      "invocation get counter/alice --key order-17",
		"lane-list":           "lane list",
		"placement-list":      "placement list",
		"placement-set":       "placement set shop --require zone=eu",
		"locate":              "locate counter/alice",
		"logs":                "logs counter/alice",
		"logs-jsonl":          "logs counter/alice --limit 1 -o jsonl",
		"module-get":          "module get counter",
		"module-list":         "module list",
		"module-list-name":    "module list -o name",
		"module-versions":     "module versions counter",
		"namespace-get":       "namespace get staging",
		"namespace-list":      "namespace list",
		"namespace-yaml":      "namespace get staging -o yaml",
		"node-list":           "node list",
		"node-drain":          "node drain n1",
		"node-drain-undo":     "node drain n1 --undo",
		"shard-plan":          "shard plan --dry-run",
		"schedule-create":     "schedule create new --target counter/alice --op inc --every 90m/15m",
		"schedule-create-bad": "schedule create new --target counter/alice --op inc --cron 0_25_*_*_mno --cron 0_3_31_13_*",
		"schedule-describe":   "schedule describe nightly",
		"schedule-history":    "schedule history tick",
		"schedule-list":       "schedule list",
		"schedule-list-jsonl": "schedule list -o jsonl",
		"schedule-next":       "schedule next 30_2_*_*_* --tz Europe/Berlin --after 2027-03-26 --count 4 --explain",
		"schedule-next-bad":   "schedule next 0_3_*_*_mno",
		"schedule-next-json":  "schedule next @every_90s --count 2 -o json",
		"schedule-yaml":       "schedule describe nightly -o yaml",
		"shard-list":          "shard list",
	} {
		t.Run(name, func(t *testing.T) {
			_, url := newFake(t)
			var args []string
			for word := range strings.FieldsSeq(line) {
				args = append(args, strings.ReplaceAll(word, "_", " ")) // no command has an underscore of its own
			}
			res := session{server: url}.run(t, args...)
			got := "$ nolactl " + line + "\n" + res.out
			if res.err != "" {
				got += "-- stderr --\n" + res.err
			}
			file := filepath.Join("testdata", name+".txt")
			if *rewrite {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s:\n%s\nwant\n%s", file, got, want)
			}
			for line := range strings.Lines(got) {
				if line != strings.TrimRight(line, " \n")+"\n" {
					t.Errorf("spaces at the end of %q", line)
				}
			}
		})
	}
}

// TestNextWarnsAsTheServerDoes: of what the times bring, not of the expression
// alone.
func TestNextWarnsAsTheServerDoes(t *testing.T) {
	for code, args := range map[string][]string{
		"BOTH_DAY_FIELDS": {"0 0 13 * fri"},
		"DST_GAP":         {"30 2 * * *", "--tz", "Europe/Berlin"},
		"DST_OVERLAP":     {"30 2 * * *", "--tz", "Europe/Berlin"},
		"RARE":            {"0 0 29 2 sun", "--dialect", "temporal"},
		"NO_MORE":         {"@daily", "--until", "2020-01-01"},
	} {
		args = append([]string{"schedule", "next", "--after", "2026-12-01", "--explain"}, args...)
		if res := (session{server: "http://127.0.0.1:1"}).run(t, args...); res.code != exitOK || strings.Count(res.err, "("+code+")") != 1 {
			t.Errorf("nolactl %q: exit code %d, want warning %s once in\n%s", args, res.code, code, res.err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	closed := "http://127.0.0.1:1" // a port on which nobody listens
	wire := func(code connect.Code, reason string) *connect.Error { return failure(code, reason, "because") }
	for name, tt := range map[string]struct {
		line   string
		server string         // instead of the fake
		refuse *connect.Error // what the fake answers
		code   int
		want   string // part of standard error
	}{
		"ok":                   {line: "invoke counter/alice inc", code: exitOK},
		"bare group":           {line: "actor", code: exitOK},
		"unknown command":      {line: "actr", code: exitUsage, want: "did you mean `nolactl actor`?"},
		"unknown subcommand":   {line: "actor lsit", code: exitUsage, want: "did you mean `nolactl actor list`?"},
		"unknown flag":         {line: "actor list --lmit 1", code: exitUsage, want: "nolactl actor list --help"},
		"missing argument":     {line: "invoke counter/alice", code: exitUsage, want: "OPERATION is missing"},
		"too many arguments":   {line: "actor list a b", code: exitUsage, want: `"b" is too much`},
		"no ref":               {line: "invoke counter inc", code: exitUsage, want: "TYPE/ID"},
		"bad type":             {line: "invoke Counter/a inc", code: exitUsage, want: `use "counter"`},
		"bad output":           {line: "actor list -o xml", code: exitUsage, want: "table, json"},
		"bad namespace":        {line: "actor list -n A", code: exitUsage, want: "namespace"},
		"no such limit":        {line: "namespace set staging --limit memory=1", code: exitUsage, want: `no limit "memory"`},
		"a limit of text":      {line: "namespace set staging --limit casts=few", code: exitUsage, want: "whole number"},
		"two namespaces":       {line: "-n a invoke b:counter/x inc", code: exitUsage, want: "once"},
		"bad server":           {line: "actor list", server: "localhost:7466", code: exitUsage, want: "http"},
		"file missing":         {line: "module push nowhere.wasm", code: exitUsage, want: "nowhere.wasm"},
		"two payloads":         {line: "invoke counter/a add 1 -f x", code: exitUsage, want: "twice"},
		"bad duration":         {line: "cast counter/a inc --delay 5", code: exitUsage, want: "90s"},
		"bad timeout":          {line: "actor list --timeout soon", code: exitUsage, want: "1h30m"},
		"no timeout":           {line: "actor list --timeout 0s", code: exitUsage, want: "must be positive"},
		"a file's name":        {line: "module push ./RUN.wasm", code: exitUsage, want: "--name"},
		"delay and at":         {line: "cast counter/a inc --delay 5s --at now", code: exitUsage, want: "delay"},
		"bad enum":             {line: "schedule trigger tick --overlap never", code: exitUsage, want: "skip, buffer-one, buffer-all, cancel-other, terminate-other, allow-all"},
		"no times":             {line: "schedule create x --target counter/a --op inc", code: exitUsage, want: "--cron"},
		"no target":            {line: "schedule create x --op inc --every 1s", code: exitUsage, want: "--target"},
		"bad zone":             {line: "schedule next @daily --tz Mars/Base", code: exitUsage, want: "Mars/Base"},
		"nothing to set":       {line: "schedule set tick", code: exitUsage, want: "nothing to change"},
		"delete unconfirmed":   {line: "schedule delete tick", code: exitUsage, want: "--yes"},
		"rejected by server":   {line: "module push run_test.go --name x", code: exitUsage, want: "INVALID_MODULE"},
		"no such schedule":     {line: "schedule describe none", code: exitNotFound, want: "nolactl schedule list"},
		"no such module":       {line: "invoke none/a inc", code: exitNotFound, want: "nolactl module push FILE --name none"},
		"no such actor":        {line: "actor describe counter/none", code: exitNotFound, want: "ACTOR_NOT_FOUND"},
		"no such key":          {line: "actor state counter/alice none", code: exitNotFound, want: "actor state"},
		"no such operation":    {line: "invoke counter/alice dec", code: exitNotFound, want: "OPERATION_NOT_FOUND"},
		"no such version":      {line: "module get counter --version 9", code: exitNotFound, want: "module versions"},
		"unauthenticated":      {line: "actor list", refuse: wire(connect.CodeUnauthenticated, "UNAUTHENTICATED"), code: exitDenied, want: "--token-file"},
		"permission denied":    {line: "actor list", refuse: wire(connect.CodePermissionDenied, "PERMISSION_DENIED"), code: exitDenied, want: "PERMISSION_DENIED"},
		"not reachable":        {line: "actor list", server: closed, code: exitUnavailable, want: "nolad dev"},
		"shard moving":         {line: "invoke counter/a inc --timeout 900ms", refuse: retryable(wire(connect.CodeUnavailable, "SHARD_MOVING"), time.Second), code: exitUnavailable, want: "try again after 1s"},
		"mailbox full":         {line: "cast counter/a inc --timeout 900ms", refuse: retryable(wire(connect.CodeResourceExhausted, "MAILBOX_FULL"), 1500*time.Millisecond), code: exitUnavailable, want: "try again after 1.5s"},
		"limit":                {line: "invoke counter/a inc", refuse: wire(connect.CodeResourceExhausted, "CPU_BUDGET"), code: exitFailure, want: "CPU_BUDGET"},
		"deadline":             {line: "invoke counter/a inc", refuse: wire(connect.CodeDeadlineExceeded, "DEADLINE_EXCEEDED"), code: exitFailure, want: "DEADLINE_EXCEEDED"},
		"unknown, keyed":       {line: "invoke counter/a inc --key k1 --timeout 200ms", refuse: wire(connect.CodeUnavailable, "OUTCOME_UNKNOWN"), code: exitUnavailable, want: "nolactl invocation get counter/a --key k1"},
		"backup exists":        {line: "backup create old", code: exitConflict, want: "ALREADY_EXISTS"},
		"already exists":       {line: "namespace create staging", code: exitConflict, want: "ALREADY_EXISTS"},
		"module in use":        {line: "module delete counter --yes", code: exitConflict, want: "--force"},
		"etag mismatch":        {line: "schedule set tick --every 2s", refuse: wire(connect.CodeAborted, "ETAG_MISMATCH"), code: exitConflict, want: "run the command again"},
		"guest error":          {line: "invoke counter/alice add nonsense", code: exitGuest, want: `add wants {"by": number}`},
		"guest trap":           {line: "invoke counter/alice trap", code: exitGuest, want: "nolactl logs"},
		"error without detail": {line: "actor list", refuse: connect.NewError(connect.CodeInternal, errors.New("oops")), code: exitFailure, want: "reason: INTERNAL"},
	} {
		t.Run(name, func(t *testing.T) {
			f, url := newFake(t)
			f.refuse = tt.refuse
			if tt.server != "" {
				url = tt.server
			}
			res := session{server: url}.run(t, strings.Fields(tt.line)...)
			if res.code != tt.code || !strings.Contains(res.err, tt.want) {
				t.Errorf("nolactl %s: exit code %d, want %d, with %q in\n%s", tt.line, res.code, tt.code, tt.want, res.err)
			}
			if res.code != exitOK && (!strings.HasPrefix(res.err, "error: ") || res.out != "") {
				t.Errorf("nolactl %s: want `error: …` on standard error alone, got %q and on standard output %q", tt.line, res.err, res.out)
			}
		})
	}
}

// TestStrangers: what answers but is no NOLA server, or not in the way that was
// asked for, is told apart from a server that may have done the work.
func TestStrangers(t *testing.T) {
	web := http.NotFoundHandler()
	plain, secure := httptest.NewServer(web), httptest.NewUnstartedServer(web)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	https := func(url string) string { return "https" + strings.TrimPrefix(url, "http") }
	for name, tt := range map[string]struct{ server, want string }{
		"HTTP/1 only":         {plain.URL, "HTTP/2"},
		"no TLS":              {https(plain.URL), "does not speak TLS"},
		"unknown authority":   {secure.URL, "SSL_CERT_FILE"},
		"TLS asked as plain":  {"http" + strings.TrimPrefix(secure.URL, "https"), "http:// or https://"},
		"nobody":              {"http://127.0.0.1:1", "nolad dev"},
		"more than an origin": {plain.URL + "/?x=1", "scheme, a host"},
	} {
		t.Run(name, func(t *testing.T) {
			res := session{server: tt.server}.run(t, "invoke", "counter/alice", "inc", "--timeout", "3s") // a slow machine has to hear the stranger out
			if res.code != exitUnavailable && res.code != exitUsage || !strings.Contains(res.err, tt.want) {
				t.Errorf("code %d, want a refusal with %q in\n%s", res.code, tt.want, res.err)
			}
		})
	}
}

// TestNextKnowsAnIDFromAnExpression: one word is told apart from an expression
// with a fault in it.
func TestNextKnowsAnIDFromAnExpression(t *testing.T) {
	for expression, isID := range map[string]bool{"nightly": true, "it's": true, "5": true, "@nightly": false, "0 25 * * *": false, "0 3 * * mno": false} {
		res := session{server: "http://127.0.0.1:1"}.run(t, "schedule", "next", expression)
		describe, flag := "nolactl schedule describe "+quote(expression), "--id "+quote(expression)
		if has := strings.Contains(res.err, describe) && strings.Contains(res.err, flag); has != isID || res.code != exitUsage {
			t.Errorf("schedule next %q: code %d, want hints with %q and %q: %v\n%s", expression, res.code, describe, flag, isID, res.err)
		}
	}
	_, url := newFake(t)
	if res := (session{server: url}).run(t, "schedule", "next", "@daily", "--id", "nightly"); res.code != exitOK {
		t.Errorf("code %d\n%s", res.code, res.err)
	}
}

// TestHintNamesWhatIsKnown: what to do about a missing module is said once, with
// the module's name in it.
func TestHintNamesWhatIsKnown(t *testing.T) {
	_, url := newFake(t)
	for _, line := range []string{"invoke none/a inc", "cast none/a inc"} {
		res := session{server: url}.run(t, strings.Fields(line)...)
		if strings.Count(res.err, "module push") != 1 || !strings.Contains(res.err, "--name none") {
			t.Errorf("nolactl %s: want one hint, with the name none, in\n%s", line, res.err)
		}
	}
}

// TestHintsNameNoPlaceholder: what a hint tells to type holds names, where the
// error tells them, and no word that stands for one.
func TestHintsNameNoPlaceholder(t *testing.T) {
	told := map[string]string{"module": "clock", "namespace": "ops", "calendar": "bank", "schedules": "nightly\ntick"}
	for _, reason := range []nola.Reason{
		nola.ReasonModuleNotFound, nola.ReasonVersionNotFound, nola.ReasonActorNotFound, nola.ReasonScheduleNotFound, nola.ReasonCalendarNotFound,
		nola.ReasonCalendarInUse, nola.ReasonNamespaceNotFound, nola.ReasonOperationNotFound, nola.ReasonETagMismatch, nola.ReasonModuleInUse,
		nola.ReasonGuestTrap, nola.ReasonAlreadyExists, nola.ReasonKeyReused,
	} {
		for _, meta := range []map[string]string{told, nil} {
			c := &cli{namespace: "ops", namespaced: true}
			hint := c.hint(reason, meta)
			if regexp.MustCompile(`\b(NAME|ID|TYPE)\b`).MatchString(strings.ReplaceAll(hint, "--name", "")) {
				t.Errorf("%s, told %v: the hint %q has a placeholder in it", reason, meta, hint)
			}
			if strings.Contains(hint, "module list") && !strings.Contains(hint, "-n ops") {
				t.Errorf("%s: the hint %q leads into another namespace", reason, hint)
			}
		}
	}
}

func TestReplyIsWrittenAsItIs(t *testing.T) {
	_, url := newFake(t)
	for name, tt := range map[string]struct {
		payload string
		person  bool
		want    string
	}{
		"to a program": {"a\x00\xff\x1b[31m", false, "a\x00\xff\x1b[31m"},
		"to a person":  {"a", true, "a\n"},
		"line end":     {"a\n", true, "a\n"},
		"binary":       {"a\x00\xff\x1b[31m", true, "a\\x00\\xff\\x1b[31m\n"},
		"empty":        {"", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			res := session{server: url, in: tt.payload, person: tt.person}.run(t, "invoke", "counter/alice", "echo", "-")
			if res.out != tt.want || res.code != exitOK {
				t.Errorf("wrote %q with code %d, want %q\n%s", res.out, res.code, tt.want, res.err)
			}
		})
	}
}

// TestALostAnswerIsAskedForAgain: a call whose answer got lost is repeated under
// its key, so that it takes effect once; and a server that is not there is
// reported without a retry.
func TestALostAnswerIsAskedForAgain(t *testing.T) {
	f, url := newFake(t)
	f.lose = 1
	res := session{server: url}.run(t, "invoke", "counter/alice", "inc")
	if res.out != "8" || res.err != "" || res.code != exitOK {
		t.Errorf("code %d, reply %q, want the 8 of the only increment\n%s", res.code, res.out, res.err)
	}
	if len(f.keyed) != 2 || f.keyed[0] != f.keyed[1] {
		t.Errorf("the call came with the keys %q, want one key twice", f.keyed)
	}
	f.lose, f.keyed = 1, nil
	res = session{server: url}.run(t, "actor", "create", "counter/new")
	if res.code != exitOK || !strings.Contains(res.out, "counter/new created") {
		t.Errorf("create: code %d, %q, want it created\n%s", res.code, res.out, res.err)
	}
	if len(f.keyed) != 2 || f.keyed[0] != f.keyed[1] {
		t.Errorf("create came with the keys %q, want one key twice", f.keyed)
	}
	f.lose = 1 << 20
	res = session{server: url}.run(t, "invoke", "counter/alice", "inc", "--timeout", "3s") // a slow machine has to hear the stranger out
	if res.code != exitUnavailable || !strings.Contains(res.err, "OUTCOME_UNKNOWN") || !strings.Contains(res.err, "--key") {
		t.Errorf("all answers lost: code %d, want %d with OUTCOME_UNKNOWN and a hint at --key\n%s", res.code, exitUnavailable, res.err)
	}
}

// TestTimesGoByTheServersClock: what counts from now, and how far off a time is,
// goes by the server's clock, which may be virtual; offline by ours.
func TestTimesGoByTheServersClock(t *testing.T) {
	f, url := newFake(t)
	f.time = start.Add(100 * 24 * time.Hour)
	s := session{server: url}
	if res := s.run(t, "schedule", "pause", "tick", "--until", "+2h"); res.code != exitOK {
		t.Fatalf("code %d\n%s", res.code, res.err)
	}
	if until := f.schedules["default/tick"].GetState().GetPausedUntil().AsTime(); until.Sub(f.time) < 2*time.Hour || until.Sub(f.time) > 2*time.Hour+time.Minute {
		t.Errorf("paused until %s, want 2 h after the server's %s", until, f.time)
	}
	if res := s.run(t, "namespace", "get", "staging"); !strings.Contains(res.out, "(100d ago)") {
		t.Errorf("what was changed an hour before %s is shown at %s as\n%s", start, f.time, res.out)
	}
	res := s.run(t, "schedule", "next", "@daily", "--after", "+24h", "--count", "1")
	if want := start.Add(24 * time.Hour).Format("2006-01"); !strings.HasPrefix(strings.Split(res.out, "\n")[1], want) {
		t.Errorf("offline, the next day is\n%swant one of %s", res.out, want)
	}
	for _, shown := range []string{"2026-11-24 13:00:00+01:00", "2026-11-24 12:00:00Z", "2026-11-24 12:00:00.250Z"} {
		if res := s.run(t, "cast", "counter/alice", "inc", "--at", shown); res.code != exitOK {
			t.Errorf("a time as it is shown, %q, is refused:\n%s", shown, res.err)
		}
	}
}

func TestRemovalAsksAPerson(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		args   []string
		gone   bool
	}{
		"yes":      {answer: "y\n", gone: true},
		"no":       {answer: "n\n"},
		"nothing":  {answer: "\n"},
		"no input": {answer: ""},
		"unasked":  {args: []string{"--yes"}, gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			f, url := newFake(t)
			res := session{server: url, in: tt.answer, person: true}.run(t, append([]string{"schedule", "delete", "tick"}, tt.args...)...)
			if gone := f.schedules["default/tick"] == nil; gone != tt.gone || (res.code == exitOK) != tt.gone {
				t.Errorf("answer %q: gone %v with code %d, want gone %v\n%s", tt.answer, gone, res.code, tt.gone, res.err)
			}
		})
	}
}

func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		env  string
		want string
	}{
		"none":        {want: ""},
		"environment": {env: "from-env", want: "Bearer from-env"},
		"file":        {args: []string{"--token-file", file}, env: "from-env", want: "Bearer from-file"},
		"flag":        {args: []string{"--token", "from-flag"}, env: "from-env", want: "Bearer from-flag"},
	} {
		t.Run(name, func(t *testing.T) {
			f, url := newFake(t)
			res := session{server: url, env: map[string]string{"NOLA_TOKEN": tt.env}}.run(t, append([]string{"module", "list"}, tt.args...)...)
			if res.code != exitOK || len(f.tokens) != 1 || f.tokens[0] != tt.want {
				t.Errorf("code %d, tokens %q, want %q\n%s", res.code, f.tokens, tt.want, res.err)
			}
		})
	}
}

func TestPushShowsProgressToAPerson(t *testing.T) {
	file := filepath.Join(t.TempDir(), "big.wasm")
	if err := os.WriteFile(file, append([]byte("\x00asm"), make([]byte, 2<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	_, url := newFake(t)
	if res := (session{server: url, person: true}).run(t, "module", "push", file); res.code != exitOK || !strings.Contains(res.err, "pushing big: 2.0 MiB of 2.0 MiB") {
		t.Errorf("code %d, standard error %q", res.code, res.err)
	}
	if res := (session{server: url}).run(t, "module", "push", file); res.code != exitOK || res.err != "" {
		t.Errorf("to a program: code %d, standard error %q, want none", res.code, res.err)
	}
}

func TestCompletion(t *testing.T) {
	_, url := newFake(t)
	for line, want := range map[string]string{
		"invoke |cou":                           "counter/",
		"invoke |counter/al":                    "counter/alice",
		"invoke |staging:counter/":              "staging:counter/alice",
		"invoke counter/alice |i":               "inc",
		"schedule describe |ni":                 "nightly",
		"schedule create x --target |counter/a": "counter/a/b:c\ncounter/alice",
		"schedule create x --overlap |":         "skip\nbuffer-one\nbuffer-all\ncancel-other\nterminate-other\nallow-all",
		"module get |":                          "counter\nscratch",
		"actor list -n |st":                     "staging",
		"namespace get |":                       "default\nstaging",
		"actor list -o |":                       "table\njson\njsonl\nyaml\nname",
	} {
		t.Run(line, func(t *testing.T) {
			before, typed, _ := strings.Cut(line, "|")
			res := session{server: url}.run(t, append(append([]string{"__completeNoDesc"}, strings.Fields(before)...), typed)...)
			got, _, _ := strings.Cut(res.out, "\n:")
			if got != want {
				t.Errorf("completed to %q, want %q", got, want)
			}
		})
	}
}

func TestScheduleChangesTouchOnlyWhatWasNamed(t *testing.T) {
	f, url := newFake(t)
	s := session{server: url, env: map[string]string{"EDITOR": "sed -i -e s/inc/add/ -e s/ops/core/"}}
	for _, line := range []string{
		"schedule set nightly --tz Europe/Lisbon --jitter 5s --limit 3 --note soon",
		"schedule set nightly --jitter= --label team=core --catchup all,2h",
		"schedule edit nightly",
	} {
		if res := s.run(t, strings.Fields(line)...); res.code != exitOK {
			t.Fatalf("nolactl %s: code %d\n%s", line, res.code, res.err)
		}
	}
	got := f.schedules["default/nightly"]
	got.Info, got.Etag = nil, ""
	want := &nolav1.Schedule{}
	if err := prototext.Unmarshal([]byte(`
		namespace: "default" schedule_id: "nightly"
		target { actor { namespace: "default" type: "counter" id: "alice" } operation: "add" }
		spec { cron { expression: "0 3 * * *" } time_zone: "Europe/Lisbon" }
		policy { catchup { mode: CATCHUP_MODE_ALL window { seconds: 7200 } } }
		state { note: "soon" limited: true remaining_actions: 3 }
		labels { key: "owner" value: "core" } labels { key: "team" value: "core" }`), want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("the schedule is now\n%v\nwant\n%v", got, want)
	}
}
