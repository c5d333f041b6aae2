-- The expression has always been STABLE (array_to_string is), and PostgreSQL puts a function into the
-- statement that calls it only where it is declared no less so. Called as a function of its own it
-- costs an executor of its own, in every pivot.
ALTER FUNCTION synap_search_document(text, text, text, text[], regconfig) STABLE;
ALTER FUNCTION synap_search_retitled(tsvector, text, text, text[], regconfig) STABLE;
