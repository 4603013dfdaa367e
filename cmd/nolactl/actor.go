package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) actorCommand() *cobra.Command {
	cmd := c.group("actor", "Look at actors and manage them",
		`What these commands show is committed state. It is read without waking the actor.`,
		`nolactl actor list counter
nolactl actor state counter/alice`)
	cmd.AddCommand(
		c.actorListCommand(), c.actorDescribeCommand(), c.actorStateCommand(), c.actorTimersCommand(),
		c.actorCreateCommand(), c.actorPassivateCommand(), c.actorDeleteCommand(),
	)
	return cmd
}

func (c *cli) actorListCommand() *cobra.Command {
	var limit int
	cmd := leaf("list [TYPE[/PREFIX]]", "List the actors of a namespace",
		`List the actors of a namespace in the order of type and id: all, those of one
type, or those of one type whose id begins with a prefix.`,
		`nolactl actor list
nolactl actor list counter/al --limit 20 -o name`,
		func(cmd *cobra.Command, args []string) error {
			return c.listActors(cmd.Context(), args, limit)
		})
	cmd.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

func (c *cli) listActors(ctx context.Context, args []string, limit int) error {
	req := &nolav1.ListActorsRequest{Namespace: c.namespace}
	if len(args) > 0 {
		req.Type, req.IdPrefix, _ = strings.Cut(args[0], "/")
		if err := nola.ValidateName("type", req.Type); err != nil {
			return usage("name a type, or TYPE/PREFIX; the namespace is chosen with -n", "%s", err)
		}
	}
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	return listing[*nolav1.ActorRef]{
		what: "actors",
		head: []string{"TYPE", "ID"},
		row:  func(a *nolav1.ActorRef) []string { return []string{a.Type, a.Id} },
		name: refName,
		wrap: func(all []*nolav1.ActorRef) proto.Message { return &nolav1.ListActorsResponse{Actors: all} },
		fetch: func(size int32, token string) ([]*nolav1.ActorRef, string, error) {
			req.PageSize, req.PageToken = size, token
			res, err := ask(ctx, c.timeout, r.Actors.ListActors, req)
			return res.GetActors(), res.GetNextPageToken(), err
		},
	}.print(c, limit)
}

func (c *cli) actorDescribeCommand() *cobra.Command {
	cmd := leaf("describe TYPE/ID", "Show one actor",
		`Show where an actor lives, what waits for it, and its activation while it is in
memory.`,
		`nolactl actor describe counter/alice
nolactl actor describe counter/alice -o yaml`,
		func(cmd *cobra.Command, args []string) error {
			ref, r, err := c.refAndRemote(args[0])
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Actors.DescribeActor, &nolav1.DescribeActorRequest{Actor: ref})
			if err != nil {
				return err
			}
			return c.show(res, refName(res.Actor), func() error { return c.describeActor(res) })
		})
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

func (c *cli) describeActor(a *nolav1.DescribeActorResponse) error {
	d := c.details()
	d.fact("Actor", refName(a.Actor))
	d.fact("Namespace", a.Actor.GetNamespace())
	d.fact("Shard", fmt.Sprint(a.Shard))
	d.fact("Created", c.when(a.Created))
	d.fact("Backlog", fmt.Sprintf("%d casts", a.BacklogEntries))
	if act := a.Activation; act == nil {
		d.fact("In memory", "no")
	} else {
		d.fact("In memory", "yes, last used "+c.when(act.LastUsed))
		d.fact("Module version", fmt.Sprint(act.ModuleVersion))
		d.fact("Mailbox", fmt.Sprintf("%d waiting", act.MailboxEntries))
		d.fact("Turns", fmt.Sprint(act.Turns))
		d.fact("Steps", fmt.Sprint(act.Steps))
		d.fact("Memory", bytesOf(act.MemoryBytes))
	}
	return d.flush()
}

func (c *cli) actorStateCommand() *cobra.Command {
	var f stateFlags
	cmd := leaf("state TYPE/ID [KEY]", "Show the state of an actor",
		`List the keys and values of an actor in the byte order of the keys, or write the
value of one key to standard output as it is. Bytes that are no text are shown in
hexadecimal behind 0x; with --hex keys are read that way, too.`,
		`nolactl actor state counter/alice
nolactl actor state counter/alice count
nolactl actor state counter/alice --prefix co --reverse --limit 10`,
		func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return c.stateValue(cmd.Context(), args, f)
			}
			return c.stateList(cmd.Context(), args[0], f)
		})
	cmd.Flags().StringVar(&f.prefix, "prefix", "", "show keys that begin with it")
	cmd.Flags().StringVar(&f.start, "start", "", "begin with this key")
	cmd.Flags().BoolVar(&f.reverse, "reverse", false, "from the last key to the first")
	cmd.Flags().BoolVar(&f.hex, "hex", false, "KEY, --prefix and --start are hexadecimal")
	cmd.Flags().IntVar(&f.limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

type stateFlags struct {
	prefix, start string
	reverse, hex  bool
	limit         int
}

func (f stateFlags) key(s string) ([]byte, error) {
	if !f.hex {
		return []byte(s), nil
	}
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		return nil, usage("", "%q is not hexadecimal", s)
	}
	return b, nil
}

func (c *cli) stateValue(ctx context.Context, args []string, f stateFlags) error {
	ref, r, err := c.refAndRemote(args[0])
	if err != nil {
		return err
	}
	key, err := f.key(args[1])
	if err != nil {
		return err
	}
	res, err := ask(ctx, c.timeout, r.Actors.GetState, &nolav1.GetStateRequest{Actor: ref, Key: key})
	switch {
	case err != nil:
		return err
	case !res.Found:
		return notFound(fmt.Sprintf("see its keys with `nolactl actor state %s`", quote(args[0])), "%s has no key %s", args[0], brief(key))
	}
	return c.show(res, args[1], func() error { return c.raw(res.Value) })
}

func (c *cli) stateList(ctx context.Context, name string, f stateFlags) error {
	ref, r, err := c.refAndRemote(name)
	if err != nil {
		return err
	}
	req := &nolav1.ListStateRequest{Actor: ref, Reverse: f.reverse}
	if req.Prefix, err = f.key(f.prefix); err != nil {
		return err
	}
	if req.Start, err = f.key(f.start); err != nil {
		return err
	}
	return listing[*nolav1.StateEntry]{
		what: "state",
		head: []string{"KEY", "VALUE", "SIZE"},
		row: func(e *nolav1.StateEntry) []string {
			return []string{brief(e.Key), brief(e.Value), bytesOf(len(e.Value))}
		},
		name: func(e *nolav1.StateEntry) string { return brief(e.Key) },
		wrap: func(all []*nolav1.StateEntry) proto.Message { return &nolav1.ListStateResponse{Entries: all} },
		fetch: func(size int32, token string) ([]*nolav1.StateEntry, string, error) {
			req.Limit, req.PageToken = size, token
			res, err := ask(ctx, c.timeout, r.Actors.ListState, req)
			return res.GetEntries(), res.GetNextPageToken(), err
		},
	}.print(c, f.limit)
}

func (c *cli) actorTimersCommand() *cobra.Command {
	var limit int
	cmd := leaf("timers TYPE/ID", "List the timers and reminders of an actor",
		`List the wake-ups that an actor has set for itself, in the order of their names.`,
		`nolactl actor timers counter/alice
nolactl actor timers counter/alice -o json`,
		func(cmd *cobra.Command, args []string) error {
			return c.listTimers(cmd.Context(), args[0], limit)
		})
	cmd.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

func (c *cli) listTimers(ctx context.Context, name string, limit int) error {
	ref, r, err := c.refAndRemote(name)
	if err != nil {
		return err
	}
	return listing[*nolav1.Timer]{
		what: "timers",
		head: []string{"NAME", "OPERATION", "DUE", "AGAIN"},
		row: func(t *nolav1.Timer) []string {
			return []string{t.Name, t.Operation, c.when(t.DueTime), again(t.Reminder)}
		},
		name: func(t *nolav1.Timer) string { return t.Name },
		wrap: func(all []*nolav1.Timer) proto.Message { return &nolav1.ListTimersResponse{Timers: all} },
		fetch: func(size int32, token string) ([]*nolav1.Timer, string, error) {
			req := &nolav1.ListTimersRequest{Actor: ref, PageSize: size, PageToken: token}
			res, err := ask(ctx, c.timeout, r.Actors.ListTimers, req)
			return res.GetTimers(), res.GetNextPageToken(), err
		},
	}.print(c, limit)
}

// again says when a reminder comes again.
func again(r *nolav1.Reminder) string {
	switch p := r.GetPeriod().(type) {
	case *nolav1.Reminder_Cron:
		return strings.TrimSpace("cron " + p.Cron + " " + r.TimeZone)
	case *nolav1.Reminder_Every:
		return "every " + exactly(p.Every.AsDuration())
	default:
		return "-"
	}
}

func (c *cli) actorCreateCommand() *cobra.Command {
	var f callFlags
	cmd := leaf("create TYPE/ID [PAYLOAD]", "Make an actor before its first call",
		`Make an actor and keep a payload that its guest gets at every start. It is refused
for an actor that exists. Actors need not be created: the first call that writes
makes them, too.`,
		`nolactl actor create counter/bob
nolactl actor create counter/bob '{"start":100}' --key signup-bob`,
		func(cmd *cobra.Command, args []string) error {
			return c.createActor(cmd.Context(), args, f)
		})
	f.register(cmd, "payload")
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

func (c *cli) createActor(ctx context.Context, args []string, f callFlags) error {
	ref, r, err := c.refAndRemote(args[0])
	if err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	payload, err := c.payloadOf(optional(args, 1), f.file, nola.PayloadBytesMax)
	if err != nil {
		return err
	}
	ctx, cancel := c.patience(ctx)
	defer cancel()
	res, err := r.Create(ctx, nolaRef(ref), payload, f.options()...)
	if err != nil {
		return c.callFailed(err, ref, f.key)
	}
	if res.Replayed && f.key != "" {
		c.note("note: this request had made the actor before under its key")
	}
	return c.say(&nolav1.CreateActorResponse{InvocationId: res.ID[:], Replayed: res.Replayed}, refName(ref), "actor %s created", refName(ref))
}

func (c *cli) actorPassivateCommand() *cobra.Command {
	cmd := leaf("passivate TYPE/ID", "Take an idle actor out of memory",
		`Take an actor out of memory. Its next call brings it back, with the default version
of its module. An actor with work in hand stays.`,
		`nolactl actor passivate counter/alice
nolactl actor passivate counter/alice -o json`,
		func(cmd *cobra.Command, args []string) error {
			ref, r, err := c.refAndRemote(args[0])
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Actors.PassivateActor, &nolav1.PassivateActorRequest{Actor: ref})
			if err != nil {
				return err
			}
			if !res.Passivated {
				return c.say(res, refName(ref), "actor %s stays as it is: it is not in memory, or has work in hand", refName(ref))
			}
			return c.say(res, refName(ref), "actor %s passivated", refName(ref))
		})
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

func (c *cli) actorDeleteCommand() *cobra.Command {
	cmd := leaf("delete TYPE/ID", "Remove an actor and all it holds",
		`Remove the state, timers, reminders, schedules and backlog of an actor. A later call
makes a new actor. Outcomes of keyed calls are remembered until they expire.`,
		`nolactl actor delete counter/alice --yes
nolactl actor delete staging:counter/alice --yes -o name`,
		func(cmd *cobra.Command, args []string) error {
			ref, r, err := c.refAndRemote(args[0])
			if err != nil {
				return err
			}
			if err := c.confirm("delete actor %s with its state, timers, schedules and backlog", refName(ref)); err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c.timeout, r.Actors.DeleteActor, &nolav1.DeleteActorRequest{Actor: ref})
			if err != nil {
				return err
			}
			return c.say(res, refName(ref), "actor %s deleted", refName(ref))
		})
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

// refAndRemote is what most commands about one actor begin with.
func (c *cli) refAndRemote(name string) (*nolav1.ActorRef, *client.Client, error) {
	ref, err := c.parseRef(name)
	if err != nil {
		return nil, nil, err
	}
	r, err := c.dial(nil)
	return ref, r, err
}

// quote puts a word into quotes where a shell needs them.
func quote(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./:@%+=,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
