"""Rates that only a reader can give: is a text false, is it about its seed's subject?"""
