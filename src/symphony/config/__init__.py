"""What the operator wrote, as checked and frozen values.

``settings`` holds the types and the pure rules (no I/O; the scheduler imports nothing else of this
package), ``loading`` turns one read of the workflow file into a ``Workflow``, ``store`` keeps the
last good one and follows the file. Settings are passed to whom they concern, never looked up.
"""
