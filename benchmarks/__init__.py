"""Measurements that anyone can repeat, beside other systems; each ends with 1 when a figure promised is not reached.

make bench                                        everything; writes docs/benchmarks.md and docs/benchmarks.svg
make bench BENCH_ARGS='noop latency --quick'      some scenarios, one short round
"""
