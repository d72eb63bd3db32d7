"""Benchmarks of userpost-worker and other job queues, on the same servers and with the same jobs.

make bench                                                everything; writes docs/benchmarks.md and its chart
make bench BENCH_ARGS='noop create latency --quick'       a few scenarios, one short round
"""
