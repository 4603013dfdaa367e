package guest

import (
	"encoding/json"
	"time"
)

// Defer has the operation end without a reply: what it returns is dropped, its
// effects are committed, and its caller waits until somebody replies by the
// token. That may be a later turn of this actor, or anybody with access to the
// API; keep the token in the state, or send it on. The invocation fails when the
// timeout has passed, and a call never later than by its caller's deadline; 0
// means the longest of a call, and 24 hours otherwise.
func (c *Context) Defer(timeout time.Duration) (token string, err error) {
	request, err := json.Marshal(struct {
		TimeoutMillis int64 `json:"timeout_millis,omitempty"`
	}{millis(timeout)})
	if err != nil {
		return "", err
	}
	reply, err := c.host("DEFER", request)
	if err != nil {
		return "", err
	}
	var deferred struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(reply, &deferred); err != nil {
		return "", unreadable("DEFER")
	}
	return deferred.Token, nil
}

// Reply answers an invocation that an earlier turn of this actor has deferred,
// with the commit of this turn. It reports whether the token was good: a token
// answers once, and not after its deadline.
func (c *Context) Reply(token string, payload []byte) (found bool, err error) {
	return c.reply(replyRequest{Token: token, Payload: payload})
}

// ReplyError fails a deferred invocation: its caller gets the text as this
// actor's error.
func (c *Context) ReplyError(token, text string) (found bool, err error) {
	if text == "" {
		text = "failed"
	}
	return c.reply(replyRequest{Token: token, Error: text})
}

type replyRequest struct {
	Token   string `json:"token"`
	Payload []byte `json:"payload,omitempty"`
	Error   string `json:"error,omitempty"`
}

func (c *Context) reply(r replyRequest) (bool, error) {
	request, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	return c.flag("REPLY", request)
}
