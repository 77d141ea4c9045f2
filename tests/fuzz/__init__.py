"""Decoders against bytes of anybody: targets, a runner with a coverage-guided fuzzer, and what it has found.

::

    guest.py  monitor.py  stored.py     targets: a name and what is called with bytes
    seeds.py                            encoded values to begin with
    corpus/TARGET/                      inputs that reach different code; ``found-*`` broke something once
    engine.py                           ``python -m tests.fuzz TARGET [SECONDS]``: Atheris (libFuzzer)
    test_corpus.py                      every test run: the corpora again, and random changes of them
"""
