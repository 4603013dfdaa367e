package main

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) invokeCommand() *cobra.Command {
	var f callFlags
	cmd := leaf("invoke TYPE/ID OPERATION [PAYLOAD]", "Call an actor and print its reply",
		`Call one operation of an actor and write its reply to standard output as it is.
An actor comes into being with its first call that writes; only its module must
be there.

With --key a retry is recognised for 24 hours: the same call under the same key
takes effect once, and its recorded reply is printed again.`,
		`nolactl invoke counter/alice inc
nolactl invoke counter/alice add '{"by":5}' --key order-17
echo '{"by":5}' | nolactl invoke counter/alice add -`,
		func(cmd *cobra.Command, args []string) error { return c.invoke(cmd.Context(), args, f) })
	f.register(cmd, "payload")
	cmd.ValidArgsFunction = c.completeCall
	return cmd
}

func (c *cli) invoke(ctx context.Context, args []string, f callFlags) error {
	ref, payload, err := c.callOf(args, f, nola.PayloadBytesMax)
	if err != nil {
		return err
	}
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	ctx, cancel := c.patience(ctx)
	defer cancel()
	res, err := r.Invoke(ctx, nolaRef(ref), args[1], payload, f.options()...)
	if err != nil {
		return c.callFailed(err, ref, f.key)
	}
	if res.Replayed && f.key != "" {
		c.note("note: this call had run before under its key; this is its recorded reply")
	}
	m := &nolav1.InvokeResponse{Payload: res.Payload, InvocationId: res.ID[:], Replayed: res.Replayed}
	return c.show(m, res.ID.String(), func() error { return c.raw(res.Payload) })
}

// patience bounds a call with all its retries, where --timeout does. Else package
// client does.
func (c *cli) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	if !c.timed {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}

// callOf reads TYPE/ID OPERATION [PAYLOAD].
func (c *cli) callOf(args []string, f callFlags, limit int64) (*nolav1.ActorRef, []byte, error) {
	ref, err := c.parseRef(args[0])
	if err != nil {
		return nil, nil, err
	}
	if err := f.check(); err != nil {
		return nil, nil, err
	}
	payload, err := c.payloadOf(optional(args, 2), f.file, limit)
	return ref, payload, err
}

// callFailed adds to the error of a call what its caller can do next.
func (c *cli) callFailed(err error, ref *nolav1.ActorRef, key string) error {
	name := refName(ref)
	unknown := "it may have happened; with --key a repeated call takes effect once"
	if key != "" {
		unknown = fmt.Sprintf("it may have happened: ask with `nolactl invocation get %s --key %s`, or repeat it under the same key", quote(name), quote(key))
	}
	in := ""
	if ref.Namespace != nola.DefaultNamespace {
		in = " -n " + ref.Namespace
	}
	return hinted{err, map[nola.Reason]string{
		nola.ReasonOutcomeUnknown:    unknown,
		nola.ReasonModuleNotFound:    fmt.Sprintf("see what is there with `nolactl module list%s`, add it with `nolactl module push FILE --name %s%[1]s`", in, ref.Type),
		nola.ReasonOperationNotFound: fmt.Sprintf("see what the module understands with `nolactl module get %s%s`", ref.Type, in),
		nola.ReasonGuestTrap:         fmt.Sprintf("see what it wrote with `nolactl logs %s`", quote(name)),
	}}
}

func (c *cli) castCommand() *cobra.Command {
	var f callFlags
	var delay, at string
	cmd := leaf("cast TYPE/ID OPERATION [PAYLOAD]", "Send to an actor without waiting for its reply",
		`Put a call into the durable backlog of an actor and print its invocation id as
soon as that is durable. "nolactl invocation get" tells for 24 hours how it ended.

With --delay or --at it waits durably until then; its payload is at most 256 KiB.`,
		`nolactl cast counter/alice inc
nolactl cast counter/alice add '{"by":5}' --delay 90s --key reminder-17
nolactl cast counter/alice inc --at 2099-12-24T18:00:00Z`,
		func(cmd *cobra.Command, args []string) error { return c.cast(cmd.Context(), args, f, delay, at) })
	f.register(cmd, "payload")
	cmd.Flags().StringVar(&delay, "delay", "", "deliver it so much later, for example 90s or 2d")
	cmd.Flags().StringVar(&at, "at", "", "deliver it at a time, for example "+timeHelp)
	cmd.ValidArgsFunction = c.completeCall
	return cmd
}

func (c *cli) cast(ctx context.Context, args []string, f callFlags, delay, at string) error {
	later, err := durationArg("delay", delay)
	if err != nil {
		return err
	}
	due, err := c.timeArg("at", at, c.local)
	if err != nil {
		return err
	}
	if later != nil && due != nil {
		return usage("", "give --delay or --at, not both")
	}
	limit := int64(nola.PayloadBytesMax)
	if later != nil || due != nil {
		limit = storedPayloadBytesMax
	}
	ref, payload, err := c.callOf(args, f, limit)
	if err != nil {
		return err
	}
	options := f.options()
	switch {
	case later != nil:
		options = append(options, client.WithDelay(later.AsDuration()))
	case due != nil:
		options = append(options, client.WithDeliverAt(due.AsTime()))
	}
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	ctx, cancel := c.patience(ctx)
	defer cancel()
	res, err := r.Cast(ctx, nolaRef(ref), args[1], payload, options...)
	if err != nil {
		return c.callFailed(err, ref, f.key)
	}
	if res.Replayed && f.key != "" {
		c.note("note: this cast was known by its key and had been accepted before")
	}
	id := res.ID.String()
	return c.say(&nolav1.CastResponse{InvocationId: res.ID[:], Replayed: res.Replayed}, id, "%s", id)
}

func (c *cli) invocationCommand() *cobra.Command {
	cmd := c.group("invocation", "See what became of calls and casts",
		`An actor remembers the outcome of casts, timers and firings, and of calls with a
key that had effects, for 24 hours.`,
		`nolactl invocation get counter/alice 019ab6f0c4d27c1e8f3a5b6c7d8e9f01
nolactl invocation get counter/alice --key order-17`)
	var key string
	get := leaf("get TYPE/ID [INVOCATION]", "Show the outcome of one invocation",
		`Show how far an invocation has come: pending, succeeded with its reply, failed
with its error, or not recorded. Name it by the id that "nolactl cast" prints, or
by the key it was sent under.`,
		`nolactl invocation get counter/alice 019ab6f0c4d27c1e8f3a5b6c7d8e9f01
nolactl invocation get counter/alice --key order-17 -o json`,
		func(cmd *cobra.Command, args []string) error {
			return c.getInvocation(cmd.Context(), args, key)
		})
	get.Flags().StringVar(&key, "key", "", "idempotency key that the call was sent under")
	get.ValidArgsFunction = c.completeActor
	cmd.AddCommand(get, c.pendingInvocationsCommand(), c.completeInvocationCommand())
	return cmd
}

func (c *cli) getInvocation(ctx context.Context, args []string, key string) error {
	ref, err := c.parseRef(args[0])
	if err != nil {
		return err
	}
	req := &nolav1.GetInvocationRequest{Actor: ref}
	switch {
	case (len(args) == 2) == (key != ""):
		return usage("", "name the invocation by its id or by --key, one of them")
	case key != "":
		req.Selector = &nolav1.GetInvocationRequest_IdempotencyKey{IdempotencyKey: key}
	default:
		id, err := parseInvocationID(args[1])
		if err != nil {
			return err
		}
		req.Selector = &nolav1.GetInvocationRequest_InvocationId{InvocationId: id}
	}
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	res, err := ask(ctx, c.timeout, r.Actors.GetInvocation, req)
	if err != nil {
		return err
	}
	id := hex.EncodeToString(res.InvocationId)
	return c.show(res, id, func() error {
		d := c.details()
		d.fact("Actor", refName(ref))
		if id != "" {
			d.fact("Invocation", id)
		}
		d.fact("State", word(res.State))
		if res.State != nolav1.InvocationState_INVOCATION_STATE_NOT_RECORDED {
			d.fact("Attempts", fmt.Sprint(res.Attempts))
		}
		if res.EndTime != nil {
			d.fact("Ended", c.when(res.EndTime))
		}
		if res.State == nolav1.InvocationState_INVOCATION_STATE_SUCCEEDED {
			d.fact("Result", fmt.Sprintf("%s (%s)", brief(res.Result), bytesOf(len(res.Result))))
		}
		if res.Error != nil {
			d.fact("Error", errorText(res.Error))
		}
		return d.flush()
	})
}

// errorText is a recorded error in one line.
func errorText(e *nolav1.Error) string {
	if e == nil {
		return ""
	}
	if e.Message == "" {
		return e.Reason
	}
	return oneLine(e.Message) + " (" + e.Reason + ")"
}
