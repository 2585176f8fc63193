"""An outside package of miniature systems: a format, converters and backends, most of them wrong on purpose.

It stands on the public contract alone and is registered through the entry-point groups, as a
package of somebody else's would be. numpy is all that it needs, so a whole matrix runs in seconds.

    network.py        the model: two layers, three outputs, at any precision
    mini.py           the format "mini", an .npz
    minicopy.py       the format "minicopy", what the converters write
    session.py        the faithful runtime
    converters.py     one function per way of converting; all but the first are wrong
    faults.py         one function per fault of a runtime
    hazards.py        the faults that endanger the process itself
    declarations.py   what is registered
"""
