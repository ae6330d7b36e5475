"""What runs inside a sandbox. Standard library only: these sources are sent to a Python that may have nothing else.

server ──fork──▶ tester (holds the tests) ──fork──▶ keeper (process 1 of fresh namespaces) ──fork──▶ the program
"""
