package main

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) completeInvocationCommand() *cobra.Command {
	var file, failure string
	cmd := leaf("complete TYPE/ID TOKEN [PAYLOAD]", "Answer a deferred invocation",
		`Answer an invocation whose turn has ended without a reply, by the token that the
actor handed out: with a payload, or with --error. A token answers once.`,
		`nolactl invocation complete counter/alice 000102030405060708090a0b0c0d0e0f '{"approved":true}'
nolactl invocation complete counter/alice 000102030405060708090a0b0c0d0e0f --error 'not approved'`,
		func(cmd *cobra.Command, args []string) error {
			return c.completeInvocation(cmd.Context(), args, file, failure)
		})
	cmd.Flags().StringVarP(&file, "file", "f", "", "read the payload from a file")
	cmd.Flags().StringVar(&failure, "error", "", "fail it with this text instead")
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}

func (c *cli) completeInvocation(ctx context.Context, args []string, file, failure string) error {
	ref, err := c.parseRef(args[0])
	if err != nil {
		return err
	}
	if _, err := nola.ParseToken(args[1]); err != nil {
		return usage("", "%s", err)
	}
	req := &nolav1.CompleteInvocationRequest{Actor: ref, Token: args[1]}
	switch {
	case failure != "" && (len(args) > 2 || file != ""):
		return usage("", "give a payload or --error, not both")
	case failure != "":
		req.Outcome = &nolav1.CompleteInvocationRequest_Error{Error: failure}
	default:
		payload, err := c.payloadOf(optional(args, 2), file, nola.PayloadBytesMax)
		if err != nil {
			return err
		}
		req.Outcome = &nolav1.CompleteInvocationRequest_Payload{Payload: payload}
	}
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	res, err := ask(ctx, c.timeout, r.Actors.CompleteInvocation, req)
	if err != nil {
		return err
	}
	id := hex.EncodeToString(res.InvocationId)
	return c.say(res, id, "invocation %s of %s completed", id, refName(ref))
}

func (c *cli) pendingInvocationsCommand() *cobra.Command {
	cmd := leaf("pending TYPE/ID", "List the deferred invocations of an actor",
		`List the invocations of an actor whose turns have ended without a reply, with the
tokens that answer them, those first whose deadlines come first.`,
		`nolactl invocation pending counter/alice
nolactl invocation pending counter/alice -o json`,
		func(cmd *cobra.Command, args []string) error {
			ref, err := c.parseRef(args[0])
			if err != nil {
				return err
			}
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.DeferredInvocation]{
				what: "deferred invocations",
				head: []string{"TOKEN", "OPERATION", "DEADLINE", "OF"},
				row: func(d *nolav1.DeferredInvocation) []string {
					of := hex.EncodeToString(d.InvocationId)
					if d.ScheduleId != "" {
						of = fmt.Sprintf("schedule %s, %s", d.ScheduleId, c.when(d.NominalTime))
					}
					return []string{d.Token, d.Operation, c.when(d.Deadline), of}
				},
				name: func(d *nolav1.DeferredInvocation) string { return d.Token },
				wrap: func(all []*nolav1.DeferredInvocation) proto.Message {
					return &nolav1.ListDeferredResponse{Deferred: all}
				},
				fetch: func(int32, string) ([]*nolav1.DeferredInvocation, string, error) {
					res, err := ask(cmd.Context(), c.timeout, r.Actors.ListDeferred, &nolav1.ListDeferredRequest{Actor: ref})
					return res.GetDeferred(), "", err
				},
			}.print(c, 0)
		})
	cmd.ValidArgsFunction = c.completeActor
	return cmd
}
