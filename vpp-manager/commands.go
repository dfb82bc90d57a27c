package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidewinder-net/sidewinder/api/node"
	"github.com/sidewinder-net/sidewinder/binapi"
	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/control"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/supervise"
)

func findCommand() *cobra.Command {
	var explicit string
	cmd := &cobra.Command{
		Use:   "find",
		Short: "Print which VPP would be used, and its version",
		Long: `Starts the VPP that would be used, with nothing to do, to see that it works
here and has the API that Sidewinder needs. Prints its path and version. The
exit status is 1 when none is usable; the reason is on standard error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := find.Find(cmd.Context(), explicit, binapi.GroupAFPacket, binapi.GroupAFXDP)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", v.Path, v.Version)
			return nil
		},
	}
	cmd.Flags().StringVar(&explicit, "vpp", "", "VPP's executable (default: $"+find.Env+", else vpp on PATH)")
	return cmd
}

func restartCommand() *cobra.Command {
	var runDir string
	var timeout time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "Restart VPP by plan, losing nothing; with a new VPP installed: upgrade it",
		Long: `Asks the vpp-manager of a run directory to turn the traffic to the kernel, wait
until VPP has sent on what it had received, stop VPP and start it again. Which
VPP that is, its configuration and its snippet are looked up anew. A VPP that
was given up is started again.

Returns when the new VPP's API answers; the agent then fills it and turns the
traffic back. The exit status is 1 when the new one does not come up, or when
traffic may have been lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			begin := time.Now()
			r, err := control.Restart(ctx, runDir)
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			} else {
				err = writeReport(cmd.OutOrStdout(), r, time.Since(begin))
			}
			if err == nil && r.DrainError != "" {
				err = fmt.Errorf("packets may have been lost: %s", r.DrainError)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&runDir, "run-dir", defaultRunDir, "run directory of the vpp-manager")
	f.DurationVar(&timeout, "timeout", time.Minute, "how long to wait; the restart itself goes on")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func writeReport(w io.Writer, r supervise.Report, total time.Duration) error {
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	var b strings.Builder
	if r.OldPID != 0 {
		quiet := "no packet came to VPP any more"
		if !r.Quiet {
			quiet = "packets still came to VPP"
		}
		fmt.Fprintf(&b, "drained:  %d links to the kernel in %s; %s\n", r.Links, ms(r.DrainMillis), quiet)
		fmt.Fprintf(&b, "stopped:  process %d, version %s, in %s\n", r.OldPID, r.OldVersion, ms(r.StopMillis))
	}
	fmt.Fprintf(&b, "started:  process %d, version %s, in %s\n", r.PID, r.Version, ms(r.StartMillis))
	fmt.Fprintf(&b, "in all:   %s\n", total.Round(time.Millisecond))
	_, err := io.WriteString(w, b.String())
	return err
}

func statusCommand() *cobra.Command {
	var runDir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print what became of VPP",
		Long: `Asks the vpp-manager of a run directory; without one, prints what the last one
left there. The exit status is 1 when VPP is not ready.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, running, err := status(cmd.Context(), runDir)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(m)
			} else {
				err = writeStatus(cmd.OutOrStdout(), m, running, time.Now())
			}
			switch {
			case err != nil:
				return err
			case !running:
				return fmt.Errorf("%w in %s", control.ErrNoManager, runDir)
			case m.State != node.StateReady:
				return fmt.Errorf("VPP is not ready: %s", m.State)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", defaultRunDir, "run directory of the vpp-manager")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: the content of manager.json")
	return cmd
}

// status asks the manager, or its file when there is none.
func status(ctx context.Context, runDir string) (m node.Manager, running bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m, err = control.Status(ctx, runDir)
	if !errors.Is(err, control.ErrNoManager) {
		return m, err == nil, err
	}
	left, ferr := node.ReadManager(runDir)
	if errors.Is(ferr, os.ErrNotExist) {
		return m, false, err
	}
	return left, false, ferr
}

func writeStatus(w io.Writer, m node.Manager, running bool, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	ago := func(at time.Time) time.Duration { return now.Sub(at).Round(time.Second) }
	if running {
		row("VPP", "%s, for %s", m.State, ago(m.Since))
	} else {
		row("VPP", "unknown: vpp-manager does not run; it said %s, %s ago", m.State, ago(m.Since))
	}
	if m.PID != 0 {
		row("process", "%d", m.PID)
	}
	if m.VPPVersion != "" {
		row("version", "%s", m.VPPVersion)
	}
	row("starts", "%d", m.Starts)
	row("deaths", "%d", m.Deaths)
	if m.LastDeath != "" {
		row("last death", "%s ago: %s", ago(m.LastDeathAt), strings.ReplaceAll(m.LastDeath, "\n", "\n\t"))
	}
	if !m.NextStart.IsZero() {
		row("next start", "in %s", m.NextStart.Sub(now).Round(time.Millisecond))
	}
	for _, u := range m.Uplinks {
		row("uplink", "%s: %s, %s in VPP; the host has it through %s", u.Link, u.Driver, u.Interface, filepath.Base(u.HostLink))
	}
	return t.Flush()
}
