package xdp

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Guard turns shims to the kernel (ModeHeld) in the moment in which one process
// begins to die, whatever of. Without it they lead to the process until the
// kernel has taken down its memory and then closed its sockets, one after the
// other: tens of milliseconds for a VPP with a hundred megabytes of packet
// buffers, and more for each socket.
//
// It is small programs on the tracepoints signal_generate (a SIGKILL is sent: the
// process need not run any more to be seen dying, which takes time on a machine
// with too much to do), signal_deliver (a fault, or in another PID namespace) and
// sched_process_exit (it ends by itself; ahead of the memory since Linux 6.16).
// They run for all processes of the machine, and end after a comparison.
type Guard struct {
	settings *ebpf.Map // of the shims, by slot
	links    []link.Link
	slots    map[uint32]uint32 // by program
}

// guardSlots is how many shims a guard covers.
const guardSlots = 1024

// fatal are the signals that end VPP: it handles those of its own faults to
// print where it was, and aborts then.
var fatal = []syscall.Signal{
	unix.SIGKILL, unix.SIGSEGV, unix.SIGABRT, unix.SIGBUS, unix.SIGILL, unix.SIGFPE,
}

// NewGuard watches a process of this process's PID namespace. ErrUnsupported:
// the kernel lacks what it needs (raw tracepoints, bpf_get_ns_current_pid_tgid:
// Linux 5.7, CONFIG_BPF_EVENTS), or does not allow it (CAP_BPF and CAP_PERFMON,
// or CAP_SYS_ADMIN).
func NewGuard(pid int) (*Guard, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return nil, fmt.Errorf("PID namespace: %w", err)
	}
	spec, err := loadShim()
	if err != nil {
		return nil, err
	}
	inner := spec.Maps[shimMapSettings].Copy()
	settings, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "guard_settings", Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: guardSlots, InnerMap: inner,
	})
	if err != nil {
		return nil, unsupported("guard: map of maps", err)
	}
	g := &Guard{settings: settings, slots: map[uint32]uint32{}}
	// The kernel's own notation of a device (include/linux/kdev_t.h).
	dev := uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))
	points := map[string]asm.Instructions{
		"signal_deliver": slices.Concat(checkSignal(), checkCurrent(pid, dev, st.Ino, false)),
		// Of a process that lives on, threads may end.
		"sched_process_exit": checkCurrent(pid, dev, st.Ino, true),
	}
	// Numbers are those of the first PID namespace here.
	if offset, err := offsetTGID(); err == nil && st.Ino == initialPIDNamespace {
		points["signal_generate"] = checkTarget(pid, offset)
	}
	for name, check := range points {
		if err := g.attach(name, slices.Concat(check, holdAll(settings.FD()))); err != nil {
			return nil, errors.Join(unsupported("guard: tracepoint "+name, err), g.Close())
		}
	}
	return g, nil
}

// initialPIDNamespace is PROC_PID_INIT_INO (include/uapi/linux/nsfs.h).
const initialPIDNamespace = 0xEFFFFFFC

// offsetTGID is where a task_struct has the number of its process.
func offsetTGID() (int32, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return 0, err
	}
	var task *btf.Struct
	if err := spec.TypeByName("task_struct", &task); err != nil {
		return 0, err
	}
	for _, m := range task.Members {
		if m.Name == "tgid" && m.BitfieldSize == 0 {
			return int32(m.Offset.Bytes()), nil
		}
	}
	return 0, fmt.Errorf("task_struct has no tgid: %w", btf.ErrNotFound)
}

func unsupported(what string, err error) error {
	for _, e := range []error{ebpf.ErrNotSupported, os.ErrPermission, os.ErrNotExist, unix.EINVAL, unix.E2BIG} {
		if errors.Is(err, e) {
			return fmt.Errorf("%s: %w: %w", what, ErrUnsupported, err)
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (g *Guard) attach(tracepoint string, code asm.Instructions) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sw_guard", Type: ebpf.RawTracepoint, Instructions: code, License: "GPL",
	})
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: p})
	if err != nil {
		return err
	}
	g.links = append(g.links, l)
	return nil
}

// checkSignal goes on for fatal signals: signal_deliver's first argument.
func checkSignal() asm.Instructions {
	code := asm.Instructions{asm.LoadMem(asm.R7, asm.R1, 0, asm.DWord)}
	for _, s := range fatal {
		code = append(code, asm.JEq.Imm(asm.R7, int32(s), "mine"))
	}
	return append(code, asm.Ja.Label("out"))
}

// The stack of the programs.
const stackIDs, stackSlot, stackKey = -8, -12, -16

// checkTarget goes on for a SIGKILL to this process: signal_generate has the
// signal first and the task third.
func checkTarget(pid int, offset int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, 0, asm.DWord),
		asm.JNE.Imm(asm.R7, int32(unix.SIGKILL), "out"),
		asm.LoadMem(asm.R3, asm.R1, 16, asm.DWord),
		asm.Add.Imm(asm.R3, offset),
		asm.StoreImm(asm.RFP, stackIDs, 0, asm.Word),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, stackIDs),
		asm.Mov.Imm(asm.R2, 4),
		asm.FnProbeReadKernel.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.RFP, stackIDs, asm.Word),
		asm.JNE.Imm(asm.R1, int32(pid), "out"),
	}
}

// checkCurrent goes on if the process that runs is the one with this number in
// the PID namespace of this device and inode; main: if it is its main thread.
func checkCurrent(pid int, dev, ino uint64, main bool) asm.Instructions {
	code := asm.Instructions{
		asm.LoadImm(asm.R1, int64(dev), asm.DWord).WithSymbol("mine"),
		asm.LoadImm(asm.R2, int64(ino), asm.DWord),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackIDs),
		asm.StoreImm(asm.RFP, stackIDs, 0, asm.Word),
		asm.StoreImm(asm.RFP, stackIDs+4, 0, asm.Word),
		asm.Mov.Imm(asm.R4, 8),
		asm.FnGetNsCurrentPidTgid.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"), // of another PID namespace
		asm.LoadMem(asm.R1, asm.RFP, stackIDs+4, asm.Word),
		asm.JNE.Imm(asm.R1, int32(pid), "out"),
	}
	if main {
		code = append(code,
			asm.LoadMem(asm.R1, asm.RFP, stackIDs, asm.Word),
			asm.JNE.Imm(asm.R1, int32(pid), "out"),
		)
	}
	return code
}

// holdAll sets the mode in all settings.
func holdAll(settings int) asm.Instructions {
	return asm.Instructions{
		// for (r8 = 0; r8 != guardSlots; r8++)
		asm.Mov.Imm(asm.R8, 0),
		asm.StoreMem(asm.RFP, stackSlot, asm.R8, asm.Word).WithSymbol("loop"),
		asm.LoadMapPtr(asm.R1, settings),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackSlot),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "next"), // an empty slot
		asm.StoreImm(asm.RFP, stackKey, int64(settingMode), asm.Word),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "next"),
		asm.StoreImm(asm.R0, 0, int64(ModeHeld), asm.Word),
		asm.Add.Imm(asm.R8, 1).WithSymbol("next"),
		asm.JNE.Imm(asm.R8, guardSlots, "loop"),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
}

// Cover sets which shims are turned. They may be closed afterwards.
func (g *Guard) Cover(shims []*Shim) error {
	var errs []error
	want := map[uint32]*Shim{}
	for _, s := range shims {
		want[s.programID] = s
	}
	for program, slot := range g.slots {
		if want[program] == nil {
			if err := g.settings.Delete(slot); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				errs = append(errs, fmt.Errorf("guard: program %d: %w", program, err))
				continue
			}
			delete(g.slots, program)
		}
	}
	used := map[uint32]bool{}
	for slot := range maps.Values(g.slots) {
		used[slot] = true
	}
	var slot uint32
	for program, s := range want {
		if _, ok := g.slots[program]; ok {
			continue
		}
		for used[slot] {
			slot++
		}
		if slot == guardSlots {
			errs = append(errs, fmt.Errorf("guard: link %s: %d shims are covered already", s.linkName, guardSlots))
			break
		}
		if err := g.settings.Put(slot, uint32(s.settings)); err != nil {
			errs = append(errs, fmt.Errorf("guard: link %s: %w", s.linkName, err))
			continue
		}
		g.slots[program], used[slot] = slot, true
	}
	return errors.Join(errs...)
}

// Close ends it; the shims stay as they are.
func (g *Guard) Close() error {
	var errs []error
	for _, l := range g.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, g.settings.Close())...)
}
