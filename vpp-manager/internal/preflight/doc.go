// Package preflight tells before VPP is started what would go wrong after: a
// list of checks, each with a verdict, what was found, and how to fix it.
//
// A check is a pure function of a Machine, which reads files below a root and
// asks the kernel through functions, so that the tests give it any machine.
// What a kernel can do is tried in a network namespace of its own rather than
// guessed from its version.
package preflight
