package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

func (c *cli) scheduleEditCommand() *cobra.Command {
	cmd := leaf("edit ID", "Change a schedule in an editor",
		`Open a schedule as YAML in the editor that VISUAL or EDITOR names, and store what
was changed when the editor ends. On a terminal the next times are shown first, and
you are asked. Nothing is stored if nothing was changed, or if somebody else changed
the schedule in the meantime.`,
		`EDITOR='sed -i s/inc/add/' nolactl schedule edit tick
EDITOR=true nolactl schedule edit nightly`,
		func(cmd *cobra.Command, args []string) error {
			return c.editSchedule(cmd.Context(), args[0])
		})
	cmd.ValidArgsFunction = c.completeSchedules
	return cmd
}

func (c *cli) editSchedule(ctx context.Context, id string) error {
	r, err := c.dial(nil)
	if err != nil {
		return err
	}
	old, err := c.getSchedule(ctx, r, id)
	if err != nil {
		return err
	}
	etag := old.GetEtag()
	old.Info, old.Etag = nil, ""
	before, err := encode(old, formatYAML)
	if err != nil {
		return err
	}
	after, err := c.edited(ctx, before)
	if err != nil {
		return err
	}
	if bytes.Equal(before, after) {
		c.note("nothing was changed")
		return nil
	}
	s := &nolav1.Schedule{}
	if err := c.decode("the edited schedule", after, s); err != nil {
		return err
	}
	if s.ScheduleId != old.ScheduleId || s.Namespace != old.Namespace || !proto.Equal(s.GetTarget().GetActor(), old.GetTarget().GetActor()) {
		return usage("make a new schedule with `nolactl schedule create`", "the id, the namespace and the target actor of a schedule never change")
	}
	mask := changedParts(old, s)
	if len(mask) == 0 {
		c.note("nothing was changed")
		return nil
	}
	if err := c.approve(ctx, s); err != nil {
		return err
	}
	s.Etag = etag
	return c.updateSchedule(ctx, r, s, mask)
}

// approve shows a person when the edited schedule will fire, and asks.
func (c *cli) approve(ctx context.Context, s *nolav1.Schedule) error {
	if c.yes || !c.inIsTerminal || !c.errIsTerminal || !c.outIsTerminal {
		return nil
	}
	if s.Spec != nil {
		if err := c.previewSchedule(ctx, s); err != nil {
			return err
		}
	}
	return c.consent("store schedule " + s.ScheduleId + "?")
}

// changedParts names the parts of a schedule that differ, as an update mask.
func changedParts(old, s *nolav1.Schedule) []string {
	var mask []string
	part := func(name string, same bool) {
		if !same {
			mask = append(mask, name)
		}
	}
	part("target.operation", s.GetTarget().GetOperation() == old.GetTarget().GetOperation())
	part("target.payload", bytes.Equal(s.GetTarget().GetPayload(), old.GetTarget().GetPayload()))
	part("spec", proto.Equal(s.GetSpec(), old.GetSpec()))
	part("policy", proto.Equal(s.GetPolicy(), old.GetPolicy()))
	part("state.paused", s.GetState().GetPaused() == old.GetState().GetPaused())
	part("state.paused_until", proto.Equal(s.GetState().GetPausedUntil(), old.GetState().GetPausedUntil()))
	part("state.note", s.GetState().GetNote() == old.GetState().GetNote())
	part("state.limited", s.GetState().GetLimited() == old.GetState().GetLimited())
	part("state.remaining_actions", s.GetState().GetRemainingActions() == old.GetState().GetRemainingActions())
	part("labels", proto.Equal(&nolav1.Schedule{Labels: s.Labels}, &nolav1.Schedule{Labels: old.Labels}))
	return mask
}

// edited gives text to the user's editor and returns what came of it.
func (c *cli) edited(ctx context.Context, text []byte) ([]byte, error) {
	editor := c.env("VISUAL")
	if editor == "" {
		editor = c.env("EDITOR")
	}
	if editor == "" {
		editor = "vi"
	}
	dir, err := os.MkdirTemp("", "nolactl-edit-")
	if err != nil {
		return nil, fmt.Errorf("make room for the editor: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // at worst a file is left among the temporary ones
	file := filepath.Join(dir, "schedule.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("make room for the editor: %w", err)
	}
	// The shell splits an editor with arguments, such as "code --wait".
	run := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", file)
	run.Stdin, run.Stdout, run.Stderr = c.in, c.errOut, c.errOut
	if c.outIsTerminal {
		run.Stdout = c.out
	}
	if err := run.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, &problem{code: exitFailure, message: fmt.Sprintf("the editor %q ended with code %d; nothing was changed", editor, exit.ExitCode())}
		}
		return nil, usage("set EDITOR to your editor", "cannot start the editor %q: %s", editor, err)
	}
	return readFile(file, fileBytesMax)
}
