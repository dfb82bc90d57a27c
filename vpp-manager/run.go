package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sidewinder-net/sidewinder/vpp-manager/find"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/control"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/limits"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/startup"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/supervise"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/traffic"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/uplink"
	"github.com/sidewinder-net/sidewinder/vpp-manager/internal/watchdog"
)

const defaultRunDir = "/run/vpp"

// runOptions are run's flags.
type runOptions struct {
	vpp, runDir, heap, extra, logLevel string
	workers, mainCore                  int
	workerCores                        string
	buffers, maxPods, ring             int
	uplinks                            []string
	dedicated                          uplink.Options
	coreDumps                          bool
	corePattern                        string
	grace, startTimeout                time.Duration
	watchdog                           bool
	busy                               time.Duration
	maxDeaths                          int
	deathWindow                        time.Duration
}

func runCommand(log *logrus.Logger) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Start VPP, wait until its API answers, restart it when it dies or hangs",
		Long: `Writes startup.conf into the run directory, starts VPP there, and prints one
line to standard output each time its API answers:

    vpp ready: pid 4711 version 25.10-release socket /run/vpp/api.sock

A VPP that is stopped or hangs is found by a watchdog: the traffic goes to the
kernel, VPP is killed and started again. After too many deaths it stays down
until vpp-manager restart.

On SIGTERM and SIGINT the traffic goes to the kernel first, then VPP and this
program end. SIGHUP is a planned restart, as vpp-manager restart.

In the run directory: api.sock, cli.sock (for vppctl -s), stats.sock, vpp.log,
vpp.pid, startup.conf, manager.json (what vpp-manager status prints),
manager.sock.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level, err := logrus.ParseLevel(o.logLevel)
			if err != nil {
				return fmt.Errorf("--log-level: %w", err)
			}
			log.SetLevel(level)
			o.uplinks = listUplinks(o.uplinks)
			if err := o.repairUplinks(log); err != nil {
				return err
			}
			s, err := o.supervisor(log)
			if err != nil {
				return err
			}
			s.Ready = func(pid int, version string) {
				fmt.Fprintf(cmd.OutOrStdout(), "vpp ready: pid %d version %s socket %s\n", pid, version, s.Conf.APISocket())
			}
			if err := o.preflight(cmd.Context()); err != nil {
				return err
			}
			return o.run(cmd.Context(), s, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.vpp, "vpp", "", "VPP's executable (default: $"+find.Env+", else vpp on PATH)")
	f.StringVar(&o.runDir, "run-dir", defaultRunDir, "folder for sockets, log and configuration")
	f.StringVar(&o.heap, "main-heap", "256M", "size of VPP's heap")
	f.IntVar(&o.buffers, "buffers", 0, "packet buffers for each NUMA node; 0: as --max-pods and the uplinks need")
	f.IntVar(&o.maxPods, "max-pods", 110, "pods on AF_XDP that VPP is to hold")
	f.IntVar(&o.ring, "ring", 0, "size of the uplinks' AF_XDP rings to have buffers for; 0: VPP's default")
	f.StringArrayVar(&o.uplinks, "uplink", nil, "interface that faces the underlay, shared with the host; or NAME=dpdk[:PCI-address] for one that VPP drives itself; repeatable (default: those of the default routes)")
	uplinkFlags(cmd, &o.dedicated)
	f.IntVar(&o.workers, "workers", 0, "threads beside the main one; 0: the main thread forwards")
	f.IntVar(&o.mainCore, "main-core", -1, "CPU of the main thread (default: chosen when there are workers)")
	f.StringVar(&o.workerCores, "worker-cores", "", "CPUs of the workers, such as 2-3 (default: chosen, near the uplinks' NICs)")
	f.StringVar(&o.extra, "extra", "", "file with more configuration, merged into startup.conf section by section")
	f.BoolVar(&o.coreDumps, "core-dumps", false, "let VPP dump core when it crashes")
	f.StringVar(&o.corePattern, "core-pattern", "", "set the machine's kernel.core_pattern while this program runs (with --core-dumps)")
	f.StringVar(&o.logLevel, "log-level", "info", "how much this program logs")
	f.DurationVar(&o.grace, "stop-timeout", 5*time.Second, "time between SIGTERM and SIGKILL")
	f.DurationVar(&o.startTimeout, "start-timeout", 30*time.Second, "time for VPP's API to answer after a start")
	f.BoolVar(&o.watchdog, "watchdog", true, "end a VPP that hangs; off to debug one")
	f.DurationVar(&o.busy, "busy-timeout", watchdog.DefaultLimits().Busy, "how long VPP may say nothing while it computes or waits for a CPU")
	f.IntVar(&o.maxDeaths, "max-deaths", 5, "deaths within --death-window after which VPP stays down; 0: it is always started again")
	f.DurationVar(&o.deathWindow, "death-window", time.Minute, "see --max-deaths")
	return cmd
}

// supervisor checks the flags.
func (o runOptions) supervisor(log *logrus.Logger) (*supervise.Supervisor, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	// Each start looks again; what is wrong now is said at once.
	path, conf, err := o.next()
	if err != nil {
		return nil, err
	}
	s := &supervise.Supervisor{
		Path: path, Conf: conf, Next: o.next,
		HugePages: func() startup.HugePages { return startup.ReadHugePages("/") },
		Grace:     o.grace, StartTimeout: o.startTimeout,
		Traffic:   traffic.ForHost(log),
		MaxDeaths: o.maxDeaths, DeathWindow: o.deathWindow, Log: log,
	}
	if o.watchdog {
		l := watchdog.DefaultLimits().WithBusy(o.busy)
		s.Watch = &l
	}
	return s, nil
}

func (o runOptions) validate() error {
	switch _, ok := startup.ParseSize(o.heap); {
	case !ok:
		return fmt.Errorf("--main-heap: %q is not a size such as 256M", o.heap)
	case o.buffers != 0 && o.buffers < 1024:
		return fmt.Errorf("--buffers: %d is less than 1024", o.buffers)
	case o.maxPods < 0:
		return fmt.Errorf("--max-pods: %d is less than 0", o.maxPods)
	case o.ring < 0 || o.ring > 32768:
		return fmt.Errorf("--ring: %d is not between 0 and 32768", o.ring)
	case o.workers < 0:
		return fmt.Errorf("--workers: %d is less than 0", o.workers)
	case o.maxDeaths < 0:
		return fmt.Errorf("--max-deaths: %d is less than 0", o.maxDeaths)
	case o.deathWindow <= 0:
		return fmt.Errorf("--death-window: %s is not more than 0", o.deathWindow)
	case o.busy < time.Second:
		return fmt.Errorf("--busy-timeout: %s is less than 1s: VPP needs up to some 100 ms to make an interface", o.busy)
	case o.corePattern != "" && !o.coreDumps:
		return errors.New("--core-pattern: has no effect without --core-dumps")
	}
	return nil
}

// next is what a start of VPP uses, found anew: VPP may have been upgraded, the
// snippet edited, the machine changed.
func (o runOptions) next() (string, startup.Config, error) {
	v, err := find.Locate(o.vpp)
	if err != nil {
		return "", startup.Config{}, err
	}
	conf, err := o.config()
	if err != nil {
		return "", startup.Config{}, err
	}
	conf.Plugins = startup.InstalledPlugins(v.Path, startup.DefaultPlugins())
	_, err = conf.Text() // the snippet too
	return v.Path, conf, err
}

func (o runOptions) config() (startup.Config, error) {
	dir, err := filepath.Abs(o.runDir)
	if err != nil {
		return startup.Config{}, fmt.Errorf("--run-dir: %w", err)
	}
	conf := startup.Config{RunDir: dir, MainHeap: o.heap, Buffers: o.buffers, CoreDumps: o.coreDumps}
	uplinks, dedicated, err := splitUplinks(o.uplinks)
	if err != nil {
		return startup.Config{}, err
	}
	for _, d := range dedicated {
		if d.Link != "" {
			uplinks = append(uplinks, d.Link)
		}
	}
	if len(uplinks) == 0 {
		uplinks = startup.DefaultLinks()
	}
	cpus, err := startup.ReadCPUs("/", uplinks)
	if err != nil {
		return startup.Config{}, err
	}
	cores, err := startup.ParseCPUs(o.workerCores)
	if err != nil {
		return startup.Config{}, fmt.Errorf("--worker-cores: %w", err)
	}
	if conf.CPU, conf.Workers, err = startup.ChooseCPU(cpus, startup.CPUWish{Workers: o.workers, Main: o.mainCore, Cores: cores}); err != nil {
		return startup.Config{}, err
	}
	if conf.Buffers == 0 {
		rings := startup.Rings{Pods: o.maxPods, UplinkRing: o.ring, Threads: conf.Workers + 1}
		for _, l := range uplinks {
			rings.UplinkQueues += startup.ReceiveQueues("/", l)
		}
		conf.Buffers = rings.Buffers()
	}
	if o.extra != "" {
		extra, err := os.ReadFile(o.extra)
		if err != nil {
			return startup.Config{}, fmt.Errorf("--extra: %w", err)
		}
		conf.Extra = string(extra)
	}
	return conf, nil
}

// run does what is to be done around the supervisor.
func (o runOptions) run(ctx context.Context, s *supervise.Supervisor, log *logrus.Logger) error {
	if err := limits.Raise(); err != nil {
		log.WithError(err).Warn("VPP has to do with less than it may need")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	s.Owner = func() error {
		if err := o.cores(s.Conf.RunDir, log); err != nil {
			return err
		}
		l, err := control.Listen(s.Conf.RunDir)
		if err != nil {
			return err
		}
		g.Go(func() error { return control.Serve(ctx, l, s) })
		return nil
	}
	s.Disown = func() error { return limits.RestoreCores("/", s.Conf.RunDir) }
	_, specs, err := splitUplinks(o.uplinks)
	if err != nil {
		return err
	}
	o.dedicated.Log, o.dedicated.RunDir = log, s.Conf.RunDir
	uplinks, err := uplink.New(o.dedicated, specs)
	if err != nil {
		return err
	}
	dedicate(s, uplinks)
	g.Go(func() error { restartOnHangup(ctx, s, log); return nil })
	g.Go(func() error {
		defer cancel()
		return s.Run(ctx)
	})
	return g.Wait()
}

// cores says where dumps go, and sets that first if asked to. What a killed
// manager has set is undone in any case.
func (o runOptions) cores(runDir string, log *logrus.Logger) error {
	if err := limits.RestoreCores("/", runDir); err != nil {
		log.WithError(err).Warn("core_pattern is not what it was before")
	}
	if !o.coreDumps {
		return nil
	}
	if o.corePattern != "" {
		if err := limits.SetCores("/", runDir, o.corePattern); err != nil {
			return fmt.Errorf("--core-pattern: %w", err)
		}
	}
	if where, problem := limits.Cores("/", runDir); problem {
		log.Warn("Core dumps of VPP: " + where + "; see core(5), or set --core-pattern")
	} else {
		log.Info("Core dumps of VPP: " + where)
	}
	return nil
}

// restartOnHangup makes a planned restart of SIGHUP.
func restartOnHangup(ctx context.Context, s *supervise.Supervisor, log *logrus.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		if _, err := s.Restart(ctx); err != nil && ctx.Err() == nil {
			log.WithError(err).Error("Restart (SIGHUP)")
		}
	}
}
