package client

import (
	"context"

	"connectrpc.com/connect"

	"github.com/nolaproject/nola"
	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// Complete answers a deferred invocation of an actor by the token that the actor
// handed out, once: with payload, or with the text of failure if that is not
// nil. It answers INVOCATION_NOT_FOUND if the token was used before, or its
// deadline has passed. It does not retry: after OUTCOME_UNKNOWN or a broken
// connection, complete again and take INVOCATION_NOT_FOUND as done.
func (c *Client) Complete(ctx context.Context, ref nola.ActorRef, token nola.Token, payload []byte, failure error) error {
	req := &nolav1.CompleteInvocationRequest{Actor: refMessage(ref), Token: token.String()}
	if failure != nil {
		req.Outcome = &nolav1.CompleteInvocationRequest_Error{Error: failure.Error()}
	} else {
		req.Outcome = &nolav1.CompleteInvocationRequest_Payload{Payload: payload}
	}
	if _, err := c.Actors.CompleteInvocation(ctx, connect.NewRequest(req)); err != nil {
		return asFailure(err).err
	}
	return nil
}
